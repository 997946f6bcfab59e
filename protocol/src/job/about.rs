//! What is said of a job, and read by nobody who decides: labels, and what made it of what.

use crate::bounded;
use serde::{Deserialize, Serialize};

/// Most labels of one job.
pub const LABELS_MAX: usize = 64;
/// Longest name of a label, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 256;
/// Most bytes of the names and values of a job's labels together.
pub const LABELS_BYTES_MAX: usize = 32 << 10;
/// Most bytes of an [`Origin`].
pub const ORIGIN_BYTES_MAX: usize = 64 << 10;

/// What is said of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct About {
    /// Names and values, sorted by name, none twice; at most [`LABELS_MAX`] of at most [`LABELS_BYTES_MAX`] together.
    #[serde(deserialize_with = "bounded::list::<_, _, LABELS_MAX>")]
    pub labels: Vec<(String, String)>,
    /// What made the job of what; `None`: a job file.
    pub origin: Option<Origin>,
}

/// What made a job of something that is written otherwise than a job file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Who: one short word.
    pub by: String,
    /// Of what, as whoever made it wants it back; at most [`ORIGIN_BYTES_MAX`] with `by`.
    pub note: String,
}

impl About {
    /// True where nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.origin.is_none()
    }
}

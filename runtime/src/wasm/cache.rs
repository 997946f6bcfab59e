//! Compiled code, loaded once for each digest.

/// Why compiled code was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read, or holds what another version of this program compiled. Compiling anew helps.
    #[error("compiled code {path}: {reason}")]
    Unusable {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// It imports what nobody offers, or exports nothing to run. Trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Standard input cannot be opened.
    #[error("standard input {path}: {error}")]
    Stdin {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

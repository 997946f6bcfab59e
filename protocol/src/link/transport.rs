//! What QUIC may use: windows, streams, timers, buffers.

/// What a listener may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most agents' connections at a time.
    pub connections_max: usize,
    /// True: several packets to one system call (GSO); false for network cards that break it.
    pub segmentation_offload: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 20_000, segmentation_offload: true }
    }
}

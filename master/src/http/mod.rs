//! The HTTP API of a master: routes under `/v1`, their JSON, who may call them, and the server they stand behind. Knows the cluster only
//! through its `Door`.

pub mod bundles;

#[cfg(test)]
mod tests;

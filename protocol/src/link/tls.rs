//! TLS 1.3 with this cluster's certificates and no others.

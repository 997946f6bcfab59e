//! Who a certificate says you are.

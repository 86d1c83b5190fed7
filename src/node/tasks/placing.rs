//! Many tasks at once.

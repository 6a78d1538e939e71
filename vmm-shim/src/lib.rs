//! A small true VMM on KVM, and a guest without KVM.

//! A small true VMM on KVM, and a guest without KVM.
mod devices;
mod layout;
mod memory;
mod spec;
mod sys;
mod sys_kvm;
mod threads;
mod vcpu;
mod vm;

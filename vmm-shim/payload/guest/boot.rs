//! All code of privilege level 0: from 32-bit protected mode to level 3, and the handlers below it.
//! Kept short, because a host may emulate each of these instructions.

use core::arch::global_asm;
use core::mem::offset_of;

use crate::protocol::{VCPU_STATS, VCPU_STATS_STRIDE, VCPUS_MAX, VcpuState};
use crate::stats::{Fault, VcpuStats};
use crate::tables;

const FAULT: usize = offset_of!(VcpuStats, fault);

// SAFETY: this is the boot code itself; it relies on `tables.rs` for every address, and on the
// linker script for the places of `.entry`, `.vectors` and `.stacks`.
global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_entry

    .section .stacks, "aw", @nobits
    .skip {vcpus} * ({kernel_stack} + {user_stack})

    .section .entry, "ax"
    .code32
    .globl pvh_entry, ap_entry
pvh_entry:
    xor %edi, %edi
    jmp 1f
    .balign 16
ap_entry:
1:  cli
    cmp ${vcpus}, %edi
    jae 3f
    lgdt 4f
    mov ${root}, %eax
    mov %eax, %cr3
    mov $0x620, %eax              # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    mov $0x100, %eax              # EFER.LME
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax         # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmp ${kernel_code}, $2f
3:  hlt
    jmp 3b
    .code64
2:  mov ${kernel_data}, %eax
    mov %eax, %ss
    mov ${user_data}, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    lidt 5f
    mov %edi, %eax
    shl $4, %eax
    add ${task}, %eax
    ltr %ax
    mov $0xff, %al                # firmware may have left the 8259s' timer interrupt on
    out %al, $0x21
    out %al, $0xa1
    mov %edi, %eax
    shl $12, %eax
    lea {kernel_stacks} + {kernel_stack}(%rax), %rsp
    mov %edi, %eax
    shl $14, %eax
    lea {user_stacks} + {user_stack} - 8(%rax), %rcx
    pushq ${user_data}
    push %rcx
    pushq $2                      # interrupts off, except in the sleep service
    pushq ${user_code}
    pushq $payload_main
    iretq
    .balign 8
    .skip 6
4:  .word {gdt_limit}
    .quad {gdt}
    .skip 6
5:  .word 256 * 16 - 1
    .quad {idt}

    .section .vectors, "ax"
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == {service_vector}
    jmp service
    .elseif vector == {timer_vector}
    jmp timer
    .elseif vector >= 32
    iretq
    .else
    # The processor pushes an error code for 8, 10 to 14, 17, 21, 29 and 30, and for no other.
    .if ((0x60227d00 >> vector) & 1) == 0
    pushq $0
    .endif
    pushq $vector
    jmp fault
    .endif
    .set vector, vector + 1
    .endr
    .balign 16

# r8 says what: 0 sleep until an interrupt, 1 CPUID, anything else stop for good.
service:
    sub $1, %r8
    jc 1f
    jne 2f
    cpuid
    iretq
1:  sti
    hlt
    cli
    iretq
2:  cli
    hlt
    jmp 2b

timer:
    push %rax
    mov $0xfee000b0, %eax         # end of interrupt
    movl $0, (%rax)
    pop %rax
    iretq

# The vCPU's index follows from its stack; a second exception stops without a word.
fault:
    mov %rsp, %rbx
    sub ${kernel_stacks}, %rbx
    shr $12, %rbx
    mov %ebx, %edi
    shl ${stride_shift}, %rbx
    add ${stats}, %rbx
    cmpl ${faulted}, {state}(%rbx)
    je 2b
    pop %rax
    mov %rax, {vector_at}(%rbx)
    pop %rax
    mov %rax, {error_at}(%rbx)
    mov (%rsp), %rax
    mov %rax, {rip_at}(%rbx)
    mov 8(%rsp), %rax
    mov %rax, {cs_at}(%rbx)
    mov 24(%rsp), %rax
    mov %rax, {rsp_at}(%rbx)
    mov %cr2, %rax
    mov %rax, {cr2_at}(%rbx)
    movl ${faulted}, {state}(%rbx)
    mov %edi, %eax
    shl $14, %eax
    lea {user_stacks} + {user_stack} - 8(%rax), %rcx
    pushq ${user_data}
    push %rcx
    pushq $2
    pushq ${user_code}
    pushq $payload_faulted
    iretq
    "#,
    vcpus = const VCPUS_MAX,
    kernel_stack = const tables::KERNEL_STACK_BYTES,
    kernel_stacks = const tables::KERNEL_STACKS,
    user_stack = const tables::USER_STACK_BYTES,
    user_stacks = const tables::USER_STACKS,
    root = const tables::ROOT,
    gdt = const tables::GDT,
    gdt_limit = const tables::GDT_LIMIT,
    idt = const tables::IDT,
    kernel_code = const tables::KERNEL_CODE,
    kernel_data = const tables::KERNEL_DATA,
    user_code = const tables::USER_CODE,
    user_data = const tables::USER_DATA,
    task = const tables::TASK,
    service_vector = const tables::SERVICE_VECTOR,
    timer_vector = const tables::TIMER_VECTOR,
    stats = const VCPU_STATS,
    stride_shift = const VCPU_STATS_STRIDE.trailing_zeros(),
    state = const offset_of!(VcpuStats, state),
    faulted = const VcpuState::Faulted as u32,
    vector_at = const FAULT + offset_of!(Fault, vector),
    error_at = const FAULT + offset_of!(Fault, error_code),
    rip_at = const FAULT + offset_of!(Fault, rip),
    rsp_at = const FAULT + offset_of!(Fault, rsp),
    cs_at = const FAULT + offset_of!(Fault, cs),
    cr2_at = const FAULT + offset_of!(Fault, cr2),
    options(att_syntax),
);

// The shifts above.
const _: () = {
    assert!(tables::KERNEL_STACK_BYTES == 1 << 12);
    assert!(tables::USER_STACK_BYTES == 1 << 14);
    assert!(VCPU_STATS_STRIDE.is_power_of_two());
};

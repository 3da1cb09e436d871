/*
 * Prints, as JSON, where Xen's headers put what this driver reads and writes, and the values of the constants.
 * make-layouts.sh compiles it once against the headers of each version.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define __XEN_TOOLS__ 1
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/memory.h>
#include <xen/vm_event.h>
#include <xen/version.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>

static const char *separator;

static void entry(const char *name, unsigned long long value)
{
	printf("%s\n    \"%s\": %llu", separator, name, value);
	separator = ",";
}

#define STRUCT(name, type)                                             \
	printf("%s\n  \"%s\": {", separator, name), separator = "", \
		entry("size", sizeof(type))
#define END() (printf("\n  }"), separator = ",")
#define AT(type, member) entry(#member, offsetof(type, member))
#define NAMED(name, type, member) entry(name, offsetof(type, member))
#define VALUE(name) entry(#name, (unsigned long long)(name))

int main(void)
{
	separator = "";
	printf("{");

	STRUCT("vm_event", vm_event_request_t);
	AT(vm_event_request_t, version);
	AT(vm_event_request_t, flags);
	AT(vm_event_request_t, reason);
	AT(vm_event_request_t, vcpu_id);
	AT(vm_event_request_t, altp2m_idx);
	AT(vm_event_request_t, u);
	AT(vm_event_request_t, data);
	NAMED("mem_access.gfn", vm_event_request_t, u.mem_access.gfn);
	NAMED("mem_access.offset", vm_event_request_t, u.mem_access.offset);
	NAMED("mem_access.gla", vm_event_request_t, u.mem_access.gla);
	NAMED("mem_access.flags", vm_event_request_t, u.mem_access.flags);
	NAMED("write_ctrlreg.index", vm_event_request_t, u.write_ctrlreg.index);
	NAMED("write_ctrlreg.new_value", vm_event_request_t, u.write_ctrlreg.new_value);
	NAMED("write_ctrlreg.old_value", vm_event_request_t, u.write_ctrlreg.old_value);
	NAMED("mov_to_msr.msr", vm_event_request_t, u.mov_to_msr.msr);
	NAMED("mov_to_msr.new_value", vm_event_request_t, u.mov_to_msr.new_value);
	NAMED("mov_to_msr.old_value", vm_event_request_t, u.mov_to_msr.old_value);
	NAMED("desc_access.descriptor", vm_event_request_t, u.desc_access.descriptor);
	NAMED("desc_access.is_write", vm_event_request_t, u.desc_access.is_write);
	NAMED("singlestep.gfn", vm_event_request_t, u.singlestep.gfn);
	NAMED("debug.gfn", vm_event_request_t, u.software_breakpoint.gfn);
	NAMED("debug.insn_length", vm_event_request_t, u.software_breakpoint.insn_length);
	NAMED("debug.type", vm_event_request_t, u.software_breakpoint.type);
	NAMED("cpuid.insn_length", vm_event_request_t, u.cpuid.insn_length);
	NAMED("cpuid.leaf", vm_event_request_t, u.cpuid.leaf);
	NAMED("cpuid.subleaf", vm_event_request_t, u.cpuid.subleaf);
	NAMED("interrupt.vector", vm_event_request_t, u.interrupt.x86.vector);
	NAMED("interrupt.type", vm_event_request_t, u.interrupt.x86.type);
	NAMED("interrupt.error_code", vm_event_request_t, u.interrupt.x86.error_code);
	NAMED("interrupt.cr2", vm_event_request_t, u.interrupt.x86.cr2);
	NAMED("emul.read.size", vm_event_request_t, data.emul.read.size);
	NAMED("emul.read.data", vm_event_request_t, data.emul.read.data);
	NAMED("emul.insn.data", vm_event_request_t, data.emul.insn.data);
#if VM_EVENT_INTERFACE_VERSION >= 6
	NAMED("debug.pending_dbg", vm_event_request_t, u.debug_exception.pending_dbg);
	NAMED("fast_singlestep.p2midx", vm_event_request_t, u.fast_singlestep.p2midx);
#endif
#ifdef VM_EVENT_REASON_IO_INSTRUCTION
	NAMED("io.bytes", vm_event_request_t, u.io.bytes);
	NAMED("io.port", vm_event_request_t, u.io.port);
	NAMED("io.in", vm_event_request_t, u.io.in);
	NAMED("io.str", vm_event_request_t, u.io.str);
#endif
	END();

	STRUCT("vm_event_regs_x86", struct vm_event_regs_x86);
	AT(struct vm_event_regs_x86, rax);
	AT(struct vm_event_regs_x86, rcx);
	AT(struct vm_event_regs_x86, rdx);
	AT(struct vm_event_regs_x86, rbx);
	AT(struct vm_event_regs_x86, rsp);
	AT(struct vm_event_regs_x86, rbp);
	AT(struct vm_event_regs_x86, rsi);
	AT(struct vm_event_regs_x86, rdi);
	AT(struct vm_event_regs_x86, r8);
	AT(struct vm_event_regs_x86, r9);
	AT(struct vm_event_regs_x86, r10);
	AT(struct vm_event_regs_x86, r11);
	AT(struct vm_event_regs_x86, r12);
	AT(struct vm_event_regs_x86, r13);
	AT(struct vm_event_regs_x86, r14);
	AT(struct vm_event_regs_x86, r15);
	AT(struct vm_event_regs_x86, rflags);
	AT(struct vm_event_regs_x86, dr7);
	AT(struct vm_event_regs_x86, rip);
	AT(struct vm_event_regs_x86, cr0);
	AT(struct vm_event_regs_x86, cr2);
	AT(struct vm_event_regs_x86, cr3);
	AT(struct vm_event_regs_x86, cr4);
	AT(struct vm_event_regs_x86, sysenter_cs);
	AT(struct vm_event_regs_x86, sysenter_esp);
	AT(struct vm_event_regs_x86, sysenter_eip);
	AT(struct vm_event_regs_x86, msr_efer);
	AT(struct vm_event_regs_x86, msr_star);
	AT(struct vm_event_regs_x86, msr_lstar);
	AT(struct vm_event_regs_x86, fs_base);
	AT(struct vm_event_regs_x86, gs_base);
#if VM_EVENT_INTERFACE_VERSION >= 4
	AT(struct vm_event_regs_x86, dr6);
	AT(struct vm_event_regs_x86, cs_base);
	AT(struct vm_event_regs_x86, ss_base);
	AT(struct vm_event_regs_x86, ds_base);
	AT(struct vm_event_regs_x86, es_base);
	AT(struct vm_event_regs_x86, cs);
	AT(struct vm_event_regs_x86, ss);
	AT(struct vm_event_regs_x86, ds);
	AT(struct vm_event_regs_x86, es);
	AT(struct vm_event_regs_x86, fs);
	AT(struct vm_event_regs_x86, gs);
	AT(struct vm_event_regs_x86, shadow_gs);
	AT(struct vm_event_regs_x86, cs_sel);
	AT(struct vm_event_regs_x86, ss_sel);
	AT(struct vm_event_regs_x86, ds_sel);
	AT(struct vm_event_regs_x86, es_sel);
	AT(struct vm_event_regs_x86, fs_sel);
	AT(struct vm_event_regs_x86, gs_sel);
#endif
#if VM_EVENT_INTERFACE_VERSION >= 5
	AT(struct vm_event_regs_x86, gdtr_base);
	AT(struct vm_event_regs_x86, gdtr_limit);
#endif
	END();

	STRUCT("vm_event_sring", struct vm_event_sring);
	AT(struct vm_event_sring, req_prod);
	AT(struct vm_event_sring, req_event);
	AT(struct vm_event_sring, rsp_prod);
	AT(struct vm_event_sring, rsp_event);
	AT(struct vm_event_sring, ring);
	entry("slots", __RING_SIZE((struct vm_event_sring *)0, 4096));
	END();

	STRUCT("getdomaininfo", struct xen_domctl_getdomaininfo);
	AT(struct xen_domctl_getdomaininfo, domain);
	AT(struct xen_domctl_getdomaininfo, flags);
	AT(struct xen_domctl_getdomaininfo, tot_pages);
	AT(struct xen_domctl_getdomaininfo, max_pages);
	AT(struct xen_domctl_getdomaininfo, shr_pages);
	AT(struct xen_domctl_getdomaininfo, paged_pages);
	AT(struct xen_domctl_getdomaininfo, nr_online_vcpus);
	AT(struct xen_domctl_getdomaininfo, max_vcpu_id);
	AT(struct xen_domctl_getdomaininfo, handle);
	AT(struct xen_domctl_getdomaininfo, arch_config);
	NAMED("emulation_flags", struct xen_domctl_getdomaininfo, arch_config.emulation_flags);
	END();

	STRUCT("domctl", struct xen_domctl);
	AT(struct xen_domctl, cmd);
	AT(struct xen_domctl, interface_version);
	AT(struct xen_domctl, domain);
	AT(struct xen_domctl, u);
	NAMED("monitor_op.op", struct xen_domctl, u.monitor_op.op);
	NAMED("monitor_op.event", struct xen_domctl, u.monitor_op.event);
	END();

	STRUCT("hvm_hw_cpu", struct hvm_hw_cpu);
#define CPU(member) AT(struct hvm_hw_cpu, member)
	CPU(fpu_regs); CPU(rax); CPU(rbx); CPU(rcx); CPU(rdx); CPU(rbp); CPU(rsi); CPU(rdi); CPU(rsp);
	CPU(r8); CPU(r9); CPU(r10); CPU(r11); CPU(r12); CPU(r13); CPU(r14); CPU(r15); CPU(rip); CPU(rflags);
	CPU(cr0); CPU(cr2); CPU(cr3); CPU(cr4);
	CPU(dr0); CPU(dr1); CPU(dr2); CPU(dr3); CPU(dr6); CPU(dr7);
	CPU(cs_sel); CPU(ds_sel); CPU(es_sel); CPU(fs_sel); CPU(gs_sel); CPU(ss_sel); CPU(tr_sel); CPU(ldtr_sel);
	CPU(cs_limit); CPU(ds_limit); CPU(es_limit); CPU(fs_limit); CPU(gs_limit); CPU(ss_limit); CPU(tr_limit);
	CPU(ldtr_limit); CPU(idtr_limit); CPU(gdtr_limit);
	CPU(cs_base); CPU(ds_base); CPU(es_base); CPU(fs_base); CPU(gs_base); CPU(ss_base); CPU(tr_base);
	CPU(ldtr_base); CPU(idtr_base); CPU(gdtr_base);
	CPU(cs_arbytes); CPU(ds_arbytes); CPU(es_arbytes); CPU(fs_arbytes); CPU(gs_arbytes); CPU(ss_arbytes);
	CPU(tr_arbytes); CPU(ldtr_arbytes);
	CPU(sysenter_cs); CPU(sysenter_esp); CPU(sysenter_eip); CPU(shadow_gs); CPU(msr_flags); CPU(msr_lstar);
	CPU(msr_star); CPU(msr_cstar); CPU(msr_syscall_mask); CPU(msr_efer); CPU(msr_tsc_aux); CPU(tsc); CPU(flags);
	END();

	STRUCT("hvm_save_descriptor", struct hvm_save_descriptor);
	AT(struct hvm_save_descriptor, typecode);
	AT(struct hvm_save_descriptor, instance);
	AT(struct hvm_save_descriptor, length);
	END();

	STRUCT("hvm_hw_lapic", struct hvm_hw_lapic);
	AT(struct hvm_hw_lapic, apic_base_msr);
	AT(struct hvm_hw_lapic, disabled);
	END();
	STRUCT("hvm_hw_lapic_regs", struct hvm_hw_lapic_regs);
	AT(struct hvm_hw_lapic_regs, data);
	END();
	STRUCT("hvm_hw_mtrr", struct hvm_hw_mtrr);
	AT(struct hvm_hw_mtrr, msr_pat_cr);
	END();
	STRUCT("hvm_hw_cpu_xsave", struct hvm_hw_cpu_xsave);
	AT(struct hvm_hw_cpu_xsave, xfeature_mask);
	AT(struct hvm_hw_cpu_xsave, xcr0);
	AT(struct hvm_hw_cpu_xsave, xcr0_accum);
	END();
	STRUCT("hvm_msr", struct hvm_msr);
	AT(struct hvm_msr, count);
	AT(struct hvm_msr, msr);
	entry("msr.size", sizeof(struct hvm_one_msr));
	entry("msr.index", offsetof(struct hvm_one_msr, index));
	entry("msr.val", offsetof(struct hvm_one_msr, val));
	END();

	STRUCT("vcpu_guest_context", struct vcpu_guest_context);
#define PV(member) AT(struct vcpu_guest_context, member)
	PV(flags); PV(user_regs); PV(ldt_base); PV(ldt_ents); PV(gdt_ents); PV(kernel_ss); PV(kernel_sp); PV(ctrlreg);
	PV(debugreg); PV(syscall_callback_eip); PV(fs_base); PV(gs_base_kernel); PV(gs_base_user);
#define USER(member) NAMED("user." #member, struct vcpu_guest_context, user_regs.member)
	USER(r15); USER(r14); USER(r13); USER(r12); USER(rbp); USER(rbx); USER(r11); USER(r10); USER(r9); USER(r8);
	USER(rax); USER(rcx); USER(rdx); USER(rsi); USER(rdi); USER(rip); USER(cs); USER(rflags); USER(rsp); USER(ss);
	USER(es); USER(ds); USER(fs); USER(gs);
	END();

	printf("%s\n  \"constants\": {", separator);
	separator = "";
	VALUE(VM_EVENT_INTERFACE_VERSION);
	VALUE(XEN_DOMCTL_INTERFACE_VERSION);
	VALUE(VM_EVENT_FLAG_VCPU_PAUSED);
	VALUE(VM_EVENT_FLAG_EMULATE);
	VALUE(VM_EVENT_FLAG_EMULATE_NOWRITE);
	VALUE(VM_EVENT_FLAG_TOGGLE_SINGLESTEP);
	VALUE(VM_EVENT_FLAG_SET_EMUL_READ_DATA);
	VALUE(VM_EVENT_FLAG_DENY);
	VALUE(VM_EVENT_FLAG_ALTERNATE_P2M);
	VALUE(VM_EVENT_FLAG_SET_REGISTERS);
	VALUE(VM_EVENT_FLAG_SET_EMUL_INSN_DATA);
	VALUE(VM_EVENT_FLAG_GET_NEXT_INTERRUPT);
#ifdef VM_EVENT_FLAG_FAST_SINGLESTEP
	VALUE(VM_EVENT_FLAG_FAST_SINGLESTEP);
#endif
	VALUE(VM_EVENT_REASON_MEM_ACCESS);
	VALUE(VM_EVENT_REASON_WRITE_CTRLREG);
	VALUE(VM_EVENT_REASON_MOV_TO_MSR);
	VALUE(VM_EVENT_REASON_SOFTWARE_BREAKPOINT);
	VALUE(VM_EVENT_REASON_SINGLESTEP);
	VALUE(VM_EVENT_REASON_GUEST_REQUEST);
	VALUE(VM_EVENT_REASON_DEBUG_EXCEPTION);
	VALUE(VM_EVENT_REASON_CPUID);
	VALUE(VM_EVENT_REASON_PRIVILEGED_CALL);
	VALUE(VM_EVENT_REASON_INTERRUPT);
	VALUE(VM_EVENT_REASON_DESCRIPTOR_ACCESS);
	VALUE(VM_EVENT_REASON_EMUL_UNIMPLEMENTED);
#ifdef VM_EVENT_REASON_IO_INSTRUCTION
	VALUE(VM_EVENT_REASON_IO_INSTRUCTION);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_IO);
#endif
	VALUE(VM_EVENT_X86_CR0);
	VALUE(VM_EVENT_X86_CR3);
	VALUE(VM_EVENT_X86_CR4);
	VALUE(VM_EVENT_X86_XCR0);
	VALUE(VM_EVENT_DESC_IDTR);
	VALUE(VM_EVENT_DESC_GDTR);
	VALUE(VM_EVENT_DESC_LDTR);
	VALUE(VM_EVENT_DESC_TR);
	VALUE(MEM_ACCESS_R);
	VALUE(MEM_ACCESS_W);
	VALUE(MEM_ACCESS_X);
	VALUE(MEM_ACCESS_GLA_VALID);
	VALUE(XENMEM_access_n);
	VALUE(XENMEM_access_r);
	VALUE(XENMEM_access_w);
	VALUE(XENMEM_access_rw);
	VALUE(XENMEM_access_x);
	VALUE(XENMEM_access_rx);
	VALUE(XENMEM_access_wx);
	VALUE(XENMEM_access_rwx);
	VALUE(XENMEM_access_default);
	VALUE(XEN_DOMINF_dying);
	VALUE(XEN_DOMINF_hvm_guest);
	VALUE(XEN_DOMINF_shutdown);
	VALUE(XEN_DOMINF_paused);
	VALUE(XEN_DOMINF_shutdownmask);
	VALUE(XEN_DOMINF_shutdownshift);
	VALUE(XEN_X86_EMU_LAPIC);
	VALUE(XEN_X86_EMU_PIT);
	VALUE(XEN_X86_EMU_IOAPIC);
	VALUE(XEN_DOMCTL_monitor_op);
	VALUE(XEN_DOMCTL_MONITOR_OP_DISABLE);
#ifdef XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS
	VALUE(XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS);
#endif
	VALUE(XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_CPUID);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_INTERRUPT);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS);
	VALUE(XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED);
	VALUE(XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF);
	VALUE(HVM_SAVE_CODE(HEADER));
	VALUE(HVM_SAVE_CODE(CPU));
	VALUE(HVM_SAVE_CODE(LAPIC));
	VALUE(HVM_SAVE_CODE(LAPIC_REGS));
	VALUE(HVM_SAVE_CODE(MTRR));
	VALUE(CPU_XSAVE_CODE);
	VALUE(CPU_MSR_CODE);
	VALUE(HVM_SAVE_CODE(END));
	VALUE(HVM_PARAM_MONITOR_RING_PFN);
	VALUE(HVM_PARAM_ALTP2M);
	VALUE(__HYPERVISOR_domctl);
	VALUE(XENVER_version);
	VALUE(XENVER_extraversion);
	VALUE(DOMID_FIRST_RESERVED);
	printf("\n  }\n}\n");
	return 0;
}

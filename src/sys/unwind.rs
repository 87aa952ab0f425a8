//! What ARM's unwind tables and the standard library's personality routine name. Nothing unwinds here, for a panic aborts:
//! none of these is ever called, and the linker drops most again. But without a definition of theirs it takes LLVM's
//! unwinder for them, and printf with that: 26 KB.

macro_rules! never_called {
    ($($name:ident)*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name() {})*
    };
}

// Exception Handling ABI for the Arm Architecture, 7 and 9.2.
never_called! {
    __aeabi_unwind_cpp_pr0 __aeabi_unwind_cpp_pr1 __aeabi_unwind_cpp_pr2 __gnu_unwind_frame
    _Unwind_GetDataRelBase _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase
    _Unwind_VRS_Get _Unwind_VRS_Set
}

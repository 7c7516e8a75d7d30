// Defaults of the sanitizers in every fuzz target.

/// A reader that asks for more than there is must answer to the failure; memory is bounded by libFuzzer's own limits.
/// LibTorch's libraries share names with what our sources instantiate of its headers.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:detect_odr_violation=0:detect_stack_use_after_return=0:quarantine_size_mb=32:"
         "malloc_context_size=6";
}
extern "C" const char* __ubsan_default_options();
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1"; }

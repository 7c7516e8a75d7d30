// What the sanitizers' own allocators do not tell.
#pragma once

namespace hesspect::test {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kHeapIsCounted = false;
#else
constexpr bool kHeapIsCounted = true;
#endif

}  // namespace hesspect::test

#include "hesspect/core/foreign_error.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace hesspect {

bool is_allocation_failure(const std::exception& error) {
  // From LibTorch's allocator on the CPU, its caching allocator on a GPU, and from what allocates beside that.
  constexpr const char* kTexts[] = {"can't allocate memory",      "not enough memory",
                                    "CUDA out of memory",         "CUDA error: out of memory",
                                    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"};
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         std::ranges::any_of(kTexts, [&](const char* text) { return std::strstr(error.what(), text) != nullptr; });
}

std::string first_line(const std::exception& error) {
  const std::string what = error.what();
  return what.substr(0, std::min<std::size_t>(what.find('\n'), 300));
}

}  // namespace hesspect

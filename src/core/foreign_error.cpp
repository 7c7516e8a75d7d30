#include "hesspect/core/foreign_error.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace hesspect {

bool is_allocation_failure(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         std::strstr(error.what(), "can't allocate memory") != nullptr ||
         std::strstr(error.what(), "not enough memory") != nullptr;
}

std::string first_line(const std::exception& error) {
  const std::string what = error.what();
  return what.substr(0, std::min<std::size_t>(what.find('\n'), 300));
}

}  // namespace hesspect

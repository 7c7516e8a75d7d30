// How many products this process has counted on its progress lines, over all its runs: for threads that show it.
#pragma once

#include <cstdint>

namespace hesspect {

/// Never falls. Any thread.
std::int64_t products_counted();
/// By Progress alone.
void count_products(std::int64_t more);

}  // namespace hesspect

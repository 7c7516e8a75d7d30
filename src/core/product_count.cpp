#include "hesspect/core/product_count.h"

#include <atomic>

namespace hesspect {
namespace {

std::atomic<std::int64_t> counted_products{0};

}  // namespace

std::int64_t products_counted() { return counted_products.load(std::memory_order_relaxed); }

void count_products(std::int64_t more) { counted_products.fetch_add(more, std::memory_order_relaxed); }

}  // namespace hesspect

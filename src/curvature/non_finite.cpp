#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/model/node_record.h"
#include "local_loss.h"

namespace hesspect {
namespace {

bool is_finite(const std::vector<at::Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return !tensor.defined() || at::isfinite(tensor.detach()).all().item<bool>();
  });
}

bool is_finite(LocalLoss& local, RowRange range, const std::vector<at::Tensor>& v) {
  const MicroBatch batch = local.batch(range);
  if (!is_finite({local.sum(batch)})) return false;
  const GradientGraph graph = local.gradient_graph(batch);
  if (v.empty() || !is_finite(graph.gradients)) return is_finite(graph.gradients);
  std::vector<at::Tensor> product;
  for (const at::Tensor& tensor : v) product.push_back(at::zeros_like(tensor));
  local.add_product(graph, v, /*keep=*/false, product);
  return is_finite(product);
}

/// The half of a range that is not finite by itself; the whole range where both halves are finite, or where the program
/// does not take so few rows.
RowRange worse_half(LocalLoss& local, RowRange range, const std::vector<at::Tensor>& v) {
  const std::int64_t middle = range.begin + range.size() / 2;
  try {
    for (const RowRange half : {RowRange{range.begin, middle}, RowRange{middle, range.end}})
      if (!is_finite(local, half, v)) return half;
  } catch (const InputError&) {
  } catch (const c10::Error& e) {
    if (is_out_of_memory(e)) throw;
  }
  return range;
}

std::string rows_text(const LocalLoss& local, RowRange range) {
  const std::int64_t first = local.global_rows().begin + range.begin;
  if (range.size() == 1) return "in row " + std::to_string(first);
  return "in rows " + std::to_string(first) + " to " + std::to_string(first + range.size() - 1);
}

/// The first node at fault on these rows; "" where none can be named.
std::string node_at_fault(LocalLoss& local, RowRange range) {
  const MicroBatch batch = local.batch(range);
  try {
    NodeRecord record(local.program());
    return record.first_non_finite(local.sum(batch));
  } catch (const std::exception& e) {
    if (!is_out_of_memory(e)) throw;
    return "";  // a record keeps every value of the batch: only the rows can be named
  }
}

}  // namespace

std::string first_non_finite(LocalLoss& local, const std::vector<RowRange>& ranges, const std::vector<at::Tensor>& v) {
  at::AutoGradMode grad(true);
  for (RowRange range : ranges) {
    if (is_finite(local, range, v)) continue;
    while (range.size() > 1) {
      const RowRange half = worse_half(local, range, v);
      if (half.size() == range.size()) break;
      range = half;
    }
    const std::string node = node_at_fault(local, range);
    return rows_text(local, range) + (node.empty() ? "" : ", " + node);
  }
  return "";
}

}  // namespace hesspect

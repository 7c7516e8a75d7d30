#include "hesspect/tangent/rule.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "hesspect/model/executor.h"

namespace hesspect {

void Arguments::call(std::vector<c10::IValue>& stack) const {
  if (fresh_op != nullptr)
    fresh_op->callBoxed(stack);
  else
    hesspect::call(instruction, stack, "");
}

bool Arguments::active(std::size_t operand) const {
  return std::ranges::any_of(sources, [&](const Source& source) { return source.operand == operand; });
}

bool Arguments::active_beyond(std::initializer_list<std::size_t> operands) const {
  return std::ranges::any_of(
      sources, [&](const Source& source) { return std::ranges::find(operands, source.operand) == operands.end(); });
}

at::Tensor Tangents::at(std::size_t operand, std::size_t item) const {
  for (std::size_t i = 0; i < sources_.size(); ++i)
    if (sources_[i].operand == operand && sources_[i].item == item) return stacked_[i];
  return {};
}

Sum* Sink::find(std::size_t operand, std::size_t item) const {
  for (const Source& source : sources_)
    if (source.operand == operand && source.item == item) {
      Sum& sum = by_slot_[static_cast<std::size_t>(source.slot)];
      return sum.wanted ? &sum : nullptr;
    }
  return nullptr;
}

bool Sink::wants(std::size_t operand, std::size_t item) const { return find(operand, item) != nullptr; }

void Sink::add(std::size_t operand, at::Tensor t, bool own, std::size_t item) {
  Sum* const sum = find(operand, item);
  if (sum == nullptr || !t.defined()) return;
  if (!sum->value.defined()) {
    sum->value = std::move(t);
    sum->own = own;
  } else if (sum->own) {
    sum->value.add_(t);
  } else if (own && t.sizes() == sum->value.sizes()) {
    t.add_(sum->value);
    sum->value = std::move(t);
    sum->own = true;
  } else {
    sum->value = sum->value + t;
    sum->own = true;
  }
}

at::Tensor Sink::open(std::size_t operand, std::size_t item) const {
  const Sum* const sum = find(operand, item);
  return sum != nullptr && sum->own ? sum->value : at::Tensor();
}

at::Tensor Sink::open_or_zeros(std::size_t operand, const at::Tensor& like, std::size_t item) {
  Sum& sum = *find(operand, item);
  if (sum.value.defined() && !sum.own) {
    sum.value = sum.value.clone(at::MemoryFormat::Contiguous);
    sum.own = true;
  } else if (!sum.value.defined()) {
    std::vector<std::int64_t> sizes = like.sizes().vec();
    sizes.insert(sizes.begin(), count_);
    sum.value = at::zeros(sizes, like.options());
    sum.own = true;
  }
  return sum.value;
}

}  // namespace hesspect

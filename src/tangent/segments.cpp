// Sweeps in segments: what crosses a cut, what is run again, and segments whose parameters come and go.
#include "hesspect/tangent/segments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "sweeps_impl.h"

namespace hesspect {

void Sweeps::Impl::find_crossing(const Cuts& cuts) {
  crosses.assign(index(list.slots), false);
  if (cuts.empty()) return;
  std::vector<int> made(index(list.slots), -1);  // the segment of each slot's maker
  int segment = 0;
  std::size_t next = 0;
  for (std::size_t n = 0; n < size(); ++n) {
    if (next < cuts.size() && cuts[next] == n) {
      ++segment;
      ++next;
    }
    for (const Operand& operand : list.nodes[n].operands)
      for_each_slot(operand, [&](int slot) {
        if (made[index(slot)] >= 0 && made[index(slot)] != segment) crosses[index(slot)] = true;
      });
    for (const int slot : list.nodes[n].outputs)
      if (slot >= 0) made[index(slot)] = segment;
  }
}

void Sweeps::Impl::find_what_is_run_again(const Cuts& cuts) {
  again.assign(size(), Again::kAll);
  std::vector<bool> needed(index(list.slots), false);
  const auto need = [&](const Operand& operand) {
    for_each_slot(operand, [&](int slot) { needed[index(slot)] = true; });
  };
  for (std::size_t n = cuts.back(); n-- > 0;) {
    const Node& node = list.nodes[n];
    const bool writes = std::ranges::find(node.instruction->writes, true) != node.instruction->writes.end();
    bool is_read = writes && !node.op;
    for (const int slot : node.outputs)
      is_read = is_read || (slot >= 0 && needed[index(slot)] && !crosses[index(slot)]);
    const Redo redo = program.turned_down[n] ? Redo::kAll : program.rules[n].redo;
    if (!is_read && (!node.active() || redo != Redo::kAll))
      again[n] = !node.active() ? Again::kNothing : redo == Redo::kArguments ? Again::kArguments : Again::kShapes;
    if (again[n] == Again::kNothing) continue;
    for (const Operand& operand : node.operands) {
      if (again[n] != Again::kShapes) need(operand);
      for_each_slot(operand, [&](int slot) {
        if (!list.active[index(slot)]) needed[index(slot)] = true;
      });
    }
  }
}

void Sweeps::Impl::run_again(std::size_t n, Pass pass) {
  const Node& node = list.nodes[n];
  if (again[n] == Again::kArguments || again[n] == Again::kShapes) timed(n, 0, [&] { runs[n] = new_run(n); });
  if (again[n] == Again::kArguments && pass.second) {
    const Tangents x_dot = tangents_of(node);
    if (any_defined(x_dot.all())) runs[n]->take(x_dot);
  }
  for (const int slot : node.outputs)
    if (slot >= 0 && !crosses[index(slot)]) values[index(slot)] = shapes[index(slot)];
}

void Sweeps::Impl::note_shapes(const Node& node) {
  for (const int slot : node.outputs) {
    if (slot < 0 || !values[index(slot)].isTensor()) continue;
    const at::Tensor& value = values[index(slot)].toTensor();
    if (value.defined()) shapes[index(slot)] = at::empty({}, value.options()).expand(value.sizes());
  }
}

void Sweeps::Impl::sweep(const Cuts& cuts, Pass forwards, Pass backwards) {
  std::vector<std::size_t> edges{0};
  edges.insert(edges.end(), cuts.begin(), cuts.end());
  edges.push_back(size());
  const std::size_t last = edges.size() - 2;
  forwards.hold = false;
  for (std::size_t s = 0; s < last; ++s) forward(edges[s], edges[s + 1], forwards);
  if (last > 0) find_what_is_run_again(cuts);
  for (std::size_t s = last + 1; s-- > 0;) {
    if (s < last && !is_reached(edges[s], edges[s + 1])) {
      forget(edges[s], edges[s + 1]);
      continue;
    }
    forwards.hold = true;
    forwards.again = s < last;
    forward(edges[s], edges[s + 1], forwards);
    if (s == last) {
      make_head(forwards);
      head_backward(backwards);
    }
    backward(edges[s], edges[s + 1], backwards);
    forget(edges[s], edges[s + 1]);
  }
}

void Sweeps::Impl::forget(std::size_t begin, std::size_t end) {
  for (std::size_t n = begin; n < end; ++n) {
    runs[n].reset();
    for (const int slot : list.nodes[n].outputs) {
      if (slot < 0) continue;
      values[index(slot)] = c10::IValue();
      if (!dots.empty()) dots[index(slot)] = at::Tensor();
    }
  }
}

// --- a segment at a time --------------------------------------------------------------------------------------------

void Sweeps::Impl::enter(const SegmentTensors& tensors) {
  between_nodes = tensors.between_nodes ? &tensors.between_nodes : nullptr;
  const auto parameters = program.program.brought_inputs();
  std::vector<Sum>& frame = vectors > 0 ? bar_dots : bars;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i] || !tensors.values[*parameters[i]].defined()) continue;
    const std::size_t p = *parameters[i], slot = index(list.inputs[i]);
    const bool is_complex = program.program.brought(p).is_complex();
    const auto as_used = [&](const at::Tensor& t) {
      return is_complex && t.defined() ? at::complex(t.select(-1, 0), t.select(-1, 1)) : t;
    };
    values[slot] = as_used(tensors.values[p]);
    if (!list.active[slot]) continue;
    if (!tensors.v.empty()) dots[slot] = as_used(tensors.v[p]);
    if (tensors.sums.empty()) continue;
    Sum& sum = frame[slot];
    sum = Sum{};
    sum.wanted = tensors.sums[p].defined();
    if (is_complex || !sum.wanted) continue;
    sum.value = tensors.sums[p];
    sum.own = sum.fixed = true;
  }
}

void Sweeps::Impl::leave(const SegmentTensors& tensors) {
  between_nodes = nullptr;
  const auto parameters = program.program.brought_inputs();
  std::vector<Sum>& frame = vectors > 0 ? bar_dots : bars;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i] || !tensors.values[*parameters[i]].defined()) continue;
    const std::size_t p = *parameters[i], slot = index(list.inputs[i]);
    values[slot] = c10::IValue();
    if (!dots.empty()) dots[slot] = at::Tensor();
    if (tensors.sums.empty()) continue;
    Sum& sum = frame[slot];
    if (program.program.brought(p).is_complex() && sum.value.defined() && tensors.sums[p].defined())
      tensors.sums[p].add_(at::view_as_real(sum.value.resolve_conj()));
    sum = Sum{};
    sum.wanted = false;
  }
}

/// A view of a parameter, such as its transpose, must not cross a cut as it is: the memory that it looks into is the
/// next segment's by then.
void Sweeps::Impl::part_from_parameters(std::size_t s, const SegmentTensors& tensors) {
  const auto part = [](at::Tensor& t, const std::vector<at::Tensor>& from) {
    const bool looks_in = t.defined() && t.has_storage() && std::ranges::any_of(from, [&](const at::Tensor& one) {
                            return one.defined() && one.is_alias_of(t);
                          });
    if (looks_in) t = t.clone();
  };
  for (std::size_t n = bounds[s]; n < bounds[s + 1]; ++n)
    for (const int slot : list.nodes[n].outputs) {
      if (slot < 0 || !crosses[index(slot)]) continue;
      c10::IValue& value = values[index(slot)];
      if (value.isTensor()) {
        at::Tensor tensor = value.toTensor();
        part(tensor, tensors.values);
        value = tensor;
      }
      if (!dots.empty()) part(dots[index(slot)], tensors.v);
    }
}

namespace {

/// A copy in host memory, page-locked beside a GPU, of the same layout.
at::Tensor on_host(const at::Tensor& t) {
  const bool is_locked = t.is_cuda();
  return at::empty_like(t, t.options().device(at::kCPU).pinned_memory(is_locked)).copy_(t, /*non_blocking=*/is_locked);
}

}  // namespace

/// What segment s has made and others read goes to the host.
void Sweeps::Impl::send_to_host(std::size_t s) {
  for (std::size_t n = bounds[s]; n < bounds[s + 1]; ++n)
    for (const int slot : list.nodes[n].outputs) {
      if (slot < 0 || !crosses[index(slot)]) continue;
      c10::IValue& value = values[index(slot)];
      if (value.isTensor() && value.toTensor().defined()) value = on_host(value.toTensor());
      if (!dots.empty() && dots[index(slot)].defined()) dots[index(slot)] = on_host(dots[index(slot)]);
    }
}

/// What segment s reads, or has made before, comes back for as long as it is worked on.
void Sweeps::Impl::bring_from_host(std::size_t s) {
  brought.clear();
  const auto bring = [&](int slot) {
    if (slot < 0 || !crosses[index(slot)] || !values[index(slot)].isTensor()) return;
    const at::Tensor value = values[index(slot)].toTensor();
    if (!value.defined() || std::ranges::find(brought, slot, &Brought::slot) != brought.end()) return;
    at::Tensor dot = dots.empty() ? at::Tensor() : dots[index(slot)];
    brought.push_back({slot, value, dot});
    const auto here = [&](const at::Tensor& t) {
      return t.to(inputs_device, t.scalar_type(), /*non_blocking=*/true, /*copy=*/true);
    };
    values[index(slot)] = here(value);
    if (dot.defined()) dots[index(slot)] = here(dot);
  };
  for (std::size_t n = bounds[s]; n < bounds[s + 1]; ++n) {
    for (const Operand& operand : list.nodes[n].operands) for_each_slot(operand, bring);
    for (const int slot : list.nodes[n].outputs) bring(slot);
  }
}

void Sweeps::Impl::let_go_of_brought() {
  for (const Brought& one : brought) {
    if (values[index(one.slot)].isNone()) continue;  // the segment that made it is done
    values[index(one.slot)] = one.value;
    if (!dots.empty()) dots[index(one.slot)] = one.dot;
  }
  brought.clear();
}

void Sweeps::Impl::begin_segments(const Cuts& cuts, std::int64_t of_vectors, bool of_gauss_newton,
                                  const std::vector<bool>& chosen) {
  kept = false;
  gauss_newton = of_gauss_newton;
  reached = chosen.empty() ? std::vector<bool>() : reached_slots(program, chosen);
  vectors = of_vectors;
  count = std::max<std::int64_t>(1, of_vectors);
  bounds.assign(1, 0);
  bounds.insert(bounds.end(), cuts.begin(), cuts.end());
  bounds.push_back(size());
  begin_run(cuts);
  again.clear();
  dots.assign(vectors > 0 ? index(list.slots) : 0, at::Tensor());
  bars = new_sums({});
  bar_dots = new_sums({});
}

void Sweeps::Impl::segment_forwards(std::size_t s, const SegmentTensors& tensors) {
  enter(tensors);
  if (crossing_on_host) bring_from_host(s);
  forward(bounds[s], bounds[s + 1], {.first = true, .second = vectors > 0});
  part_from_parameters(s, tensors);
  if (crossing_on_host) {
    let_go_of_brought();
    send_to_host(s);
  }
  leave(tensors);
}

void Sweeps::Impl::segment_backwards(std::size_t s, const SegmentTensors& tensors) {
  const bool is_last = s + 2 == bounds.size();
  if (!is_last && again.empty()) find_what_is_run_again({bounds.begin() + 1, bounds.end() - 1});
  const Pass forwards{.first = true, .second = vectors > 0, .hold = true, .again = !is_last};
  const Pass backwards{.first = vectors == 0 || !gauss_newton, .second = vectors > 0};
  enter(tensors);
  if (crossing_on_host) bring_from_host(s);
  forward(bounds[s], bounds[s + 1], forwards);
  if (is_last) {
    make_head(forwards);
    head_backward(backwards);
  }
  backward(bounds[s], bounds[s + 1], backwards);
  forget(bounds[s], bounds[s + 1]);
  if (crossing_on_host) let_go_of_brought();
  leave(tensors);
}

void Sweeps::Impl::let_go_of_inner(std::size_t first, std::size_t last) {
  std::vector<bool> read_later(index(list.slots), false);
  const auto note = [&](const Operand& operand) {
    for_each_slot(operand, [&](int slot) { read_later[index(slot)] = true; });
  };
  for (std::size_t n = bounds[last + 1]; n < size(); ++n)
    for (const Operand& operand : list.nodes[n].operands) note(operand);
  for (const Operand& output : list.kept) note(output);
  for (std::size_t n = bounds[first]; n < bounds[last + 1]; ++n)
    for (const int slot : list.nodes[n].outputs) {
      if (slot < 0 || read_later[index(slot)]) continue;
      values[index(slot)] = c10::IValue();
      if (!dots.empty()) dots[index(slot)] = at::Tensor();
    }
}

void Sweeps::begin_segments(const Segments& segments, std::int64_t vectors, bool gauss_newton,
                            const std::vector<bool>& chosen) {
  const SweepScope scope(impl_->program.program);
  impl_->crossing_on_host = segments.crossing_on_host();
  impl_->begin_segments(segments.cuts(), vectors, gauss_newton, chosen);
}

void Sweeps::begin_outputs(const Segments& segments) {
  const SweepScope scope(impl_->program.program);
  impl_->crossing_on_host = segments.crossing_on_host();
  impl_->begin_segments(segments.cuts(), 0, false, {});
  impl_->fused = false;
}

void Sweeps::segment_forwards(std::size_t segment, const SegmentTensors& tensors) {
  const SweepScope scope(impl_->program.program);
  impl_->segment_forwards(segment, tensors);
}

void Sweeps::segment_backwards(std::size_t segment, const SegmentTensors& tensors) {
  const SweepScope scope(impl_->program.program);
  impl_->segment_backwards(segment, tensors);
}

void Sweeps::let_go_of_inner(std::size_t first, std::size_t last) { impl_->let_go_of_inner(first, last); }

double Sweeps::end_segments() {
  const double sum = impl_->head != nullptr ? impl_->head->sum() : 0;
  impl_->finish();
  return sum;
}

at::Tensor Sweeps::end_outputs() {
  const SweepScope scope(impl_->program.program);
  at::Tensor output = materialise(impl_->list.kept.front(), impl_->values).toTensor();
  impl_->finish();
  return output;
}

Segments::Segments(const TangentProgram& program, Cuts cuts, bool crossing_on_host)
    : cuts_(std::move(cuts)), crossing_on_host_(crossing_on_host) {
  const NodeList& list = program.impl().list;
  const auto of_input = program.program().brought_inputs();
  std::vector<std::int64_t> parameter_of(index(list.slots), -1);
  for (std::size_t i = 0; i < of_input.size(); ++i)
    if (of_input[i]) parameter_of[index(list.inputs[i])] = static_cast<std::int64_t>(*of_input[i]);
  std::set<std::size_t> read;
  std::size_t next = 0;
  const auto end_segment = [&] {
    read_.emplace_back(read.begin(), read.end());
    read.clear();
  };
  for (std::size_t n = 0; n < list.nodes.size(); ++n) {
    if (next < cuts_.size() && cuts_[next] == n) {
      end_segment();
      ++next;
    }
    for (const Operand& operand : list.nodes[n].operands)
      for_each_slot(operand, [&](int slot) {
        if (parameter_of[index(slot)] >= 0) read.insert(static_cast<std::size_t>(parameter_of[index(slot)]));
      });
  }
  end_segment();
}

bool reads_parameters(const Program& program, std::size_t output) {
  return !Segments(TangentProgram(program, {output}), {}).read_in(0).empty();
}

std::vector<bool> Segments::reached(const TangentProgram& program, const Cuts& cuts, const std::vector<bool>& chosen) {
  const TangentProgram::Impl& impl = program.impl();
  const std::vector<bool> slots = reached_slots(impl, chosen);
  std::vector<bool> segments(cuts.size() + 1, false);
  if (impl.output < 0 || !slots[index(impl.output)]) return segments;
  for (std::size_t n = 0, s = 0; n < impl.list.nodes.size(); ++n) {
    while (s < cuts.size() && cuts[s] <= n) ++s;
    for (const Source& source : impl.list.nodes[n].sources)
      if (slots[index(source.slot)]) segments[s] = true;
  }
  return segments;
}

std::vector<std::vector<std::size_t>> Segments::readers(std::size_t parameters) const {
  std::vector<std::vector<std::size_t>> readers(parameters);
  for (std::size_t s = 0; s < read_.size(); ++s)
    for (const std::size_t parameter : read_[s]) readers[parameter].push_back(s);
  return readers;
}

}  // namespace hesspect

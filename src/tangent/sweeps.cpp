// The sweeps of one micro-batch over the list of nodes.
#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "sweeps_impl.h"

namespace hesspect {

void Sweeps::Impl::begin_values() {
  values = program.first_values(inputs);
  head = nullptr;
}

std::vector<bool> reached_slots(const TangentProgram::Impl& program, const std::vector<bool>& chosen) {
  const NodeList& list = program.list;
  std::vector<bool> reached(index(list.slots), false);
  const auto parameters = program.program.parameter_inputs();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i] && chosen[*parameters[i]]) reached[index(list.inputs[i])] = true;
  for (const Node& node : list.nodes) {
    const bool is_reached =
        std::ranges::any_of(node.sources, [&](const Source& source) { return reached[index(source.slot)]; });
    if (!node.active() || !is_reached) continue;
    for (const int slot : node.outputs)
      if (slot >= 0) reached[index(slot)] = true;
  }
  return reached;
}

void Sweeps::Impl::find_reached(const std::vector<at::Tensor>& products) {
  reached.clear();
  if (std::ranges::all_of(products, [](const at::Tensor& t) { return t.defined(); })) return;
  std::vector<bool> chosen;
  for (const at::Tensor& product : products) chosen.push_back(product.defined());
  reached = reached_slots(program, chosen);
}

bool Sweeps::Impl::is_reached(std::span<const Source> sources) const {
  return reached.empty() ||
         std::ranges::any_of(sources, [&](const Source& source) { return reached[index(source.slot)]; });
}

bool Sweeps::Impl::is_reached(std::size_t begin, std::size_t end) const {
  for (std::size_t n = begin; n < end; ++n)
    if (is_reached(list.nodes[n])) return true;
  return false;
}

void Sweeps::Impl::begin_dots(const std::vector<at::Tensor>& v) {
  dots.assign(index(list.slots), at::Tensor());
  const auto parameters = program.program.parameter_inputs();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i] || !list.active[index(list.inputs[i])]) continue;
    const bool is_complex = program.program.layout().entries()[*parameters[i]].is_complex();
    const at::Tensor& t = v[*parameters[i]];
    if (!t.defined()) continue;
    dots[index(list.inputs[i])] = is_complex ? at::complex(t.select(-1, 0), t.select(-1, 1)) : t;
  }
}

std::vector<Sum> Sweeps::Impl::new_sums(const std::vector<at::Tensor>& sums) const {
  std::vector<Sum> frame(index(list.slots));
  for (std::size_t slot = 0; slot < reached.size(); ++slot) frame[slot].wanted = reached[slot];
  const auto parameters = program.program.parameter_inputs();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i]) continue;
    Sum& sum = frame[index(list.inputs[i])];
    sum.wanted = !sums.empty() && sums[*parameters[i]].defined();
    if (!sum.wanted || program.program.layout().entries()[*parameters[i]].is_complex()) continue;
    sum.value = sums[*parameters[i]];
    sum.own = sum.fixed = true;
  }
  return frame;
}

void Sweeps::Impl::add_complex(const std::vector<Sum>& frame, const std::vector<at::Tensor>& sums) const {
  const auto parameters = program.program.parameter_inputs();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i] || !program.program.layout().entries()[*parameters[i]].is_complex()) continue;
    const at::Tensor& value = frame[index(list.inputs[i])].value;
    if (value.defined()) sums[*parameters[i]].add_(at::view_as_real(value.resolve_conj()));
  }
}

Arguments Sweeps::Impl::arguments_of(std::size_t n) const {
  const Node& node = list.nodes[n];
  std::vector<c10::IValue> given;
  for (const Operand& operand : node.operands) given.push_back(materialise(operand, values));
  return {*node.instruction, node.sources, std::move(given), node.op ? &*node.op : nullptr};
}

void Sweeps::Impl::run_plainly(std::size_t n) {
  const Node& node = list.nodes[n];
  Arguments arguments = arguments_of(n);
  std::vector<c10::IValue> stack = std::move(arguments.values);
  arguments.call(stack);
  if (node.instruction->spreads_list) {
    const std::vector<at::Tensor> tensors = stack.at(0).toTensorVector();
    for (std::size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] >= 0) values[index(node.outputs[i])] = tensors.at(i);
    return;
  }
  for (std::size_t i = 0; i < node.outputs.size() && i < stack.size(); ++i)
    if (node.outputs[i] >= 0) values[index(node.outputs[i])] = std::move(stack[i]);
}

std::unique_ptr<NodeRun> Sweeps::Impl::new_run(std::size_t n) const {
  Arguments arguments = arguments_of(n);
  std::unique_ptr<NodeRun> run = program.rules[n].make != nullptr ? program.rules[n].make(arguments) : nullptr;
  if (run != nullptr) return run;
  if (program.rules[n].make != nullptr) program.turned_down[n] = true;
  return fallback(arguments);
}

void Sweeps::Impl::run_by_rule(std::size_t n) {
  std::unique_ptr<NodeRun> run = new_run(n);
  std::vector<at::Tensor> y = run->value();
  const Node& node = list.nodes[n];
  for (std::size_t i = 0; i < node.outputs.size() && i < y.size(); ++i)
    if (node.outputs[i] >= 0) values[index(node.outputs[i])] = std::move(y[i]);
  runs[n] = std::move(run);
}

Tangents Sweeps::Impl::tangents_of(const Node& node) const {
  std::vector<at::Tensor> stacked;
  for (const Source& source : node.sources) stacked.push_back(dots[index(source.slot)]);
  return {node.sources, std::move(stacked), count};
}

bool Sweeps::Impl::any_defined(std::span<const at::Tensor> tensors) {
  return std::ranges::any_of(tensors, [](const at::Tensor& t) { return t.defined(); });
}

void Sweeps::Impl::carry_tangents(std::size_t n) {
  const Node& node = list.nodes[n];
  const Tangents x_dot = tangents_of(node);
  std::vector<at::Tensor> y_dot(node.outputs.size());
  if (any_defined(x_dot.all())) y_dot = runs[n]->tangent(x_dot);
  for (std::size_t i = 0; i < node.outputs.size() && i < y_dot.size(); ++i)
    if (node.outputs[i] >= 0) dots[index(node.outputs[i])] = std::move(y_dot[i]);
}

void Sweeps::Impl::forward(std::size_t begin, std::size_t end, Pass pass) {
  for (std::size_t n = begin; n < end; ++n) {
    if (is_head(n)) continue;
    const Node& node = list.nodes[n];
    at_node(n, [&] {
      if (pass.again && again[n] != Again::kAll) return run_again(n, pass);
      if (pass.first && !node.active()) timed(n, 0, [&] { run_plainly(n); });
      if (pass.first && node.active()) timed(n, 0, [&] { run_by_rule(n); });
      if (pass.second && node.active() && is_reached(node)) timed(n, 1, [&] { carry_tangents(n); });
    });
    if (!shapes.empty() && !pass.again) note_shapes(node);
    if (!pass.hold) runs[n].reset();
    for (const int slot : node.dead) {
      if (crosses[index(slot)]) continue;
      if (pass.first) values[index(slot)] = c10::IValue();
      if (pass.second) dots[index(slot)] = at::Tensor();
    }
  }
}

std::vector<at::Tensor> Sweeps::Impl::taken(const Node& node, std::vector<Sum>& frame) {
  std::vector<at::Tensor> tensors;
  for (const int slot : node.outputs) {
    tensors.push_back(slot < 0 ? at::Tensor() : std::move(frame[index(slot)].value));
    if (slot >= 0) frame[index(slot)] = Sum{};
  }
  return tensors;
}

void Sweeps::Impl::backward(std::size_t begin, std::size_t end, Pass pass) {
  for (std::size_t n = end; n-- > begin;) {
    const Node& node = list.nodes[n];
    if (!node.active() || is_head(n) || !is_reached(node)) continue;
    at_node(n, [&] {
      if (pass.first) {
        const std::vector<at::Tensor> y_bar = taken(node, bars);
        Sink sink(node.sources, bars, 1);
        if (any_defined(y_bar)) timed(n, 2, [&] { runs[n]->adjoint(y_bar, sink); });
      }
      if (pass.second) {
        const std::vector<at::Tensor> y_bar_dot = taken(node, bar_dots);
        Sink sink(node.sources, bar_dots, count);
        timed(n, 3, [&] { runs[n]->adjoint_tangent(y_bar_dot, sink); });
      }
    });
    if (!pass.hold) runs[n].reset();
  }
}

std::span<const Source> Sweeps::Impl::head_sources() const {
  return fused ? std::span<const Source>(list.nodes[index(program.linear_head)].sources) : output_source;
}

void Sweeps::Impl::make_head(Pass pass) {
  if (fused) {
    head = linear_head(arguments_of(index(program.linear_head)), objective, /*small=*/!shapes.empty());
    if (head != nullptr) return;
    fused = false;  // the layer's shapes are others than it takes: it is run as any node is
    const std::size_t n = index(program.linear_head);
    forward(n, n + 1, pass);
  }
  const bool is_active = program.output >= 0 && list.active[index(program.output)];
  output_source.assign(is_active ? 1 : 0, Source{0, 0, program.output});
  head = plain_head(materialise(list.kept.front(), values).toTensor(), objective, rows);
}

void Sweeps::Impl::head_backward(Pass pass) {
  const std::span<const Source> sources = head_sources();
  if (pass.second) {
    std::vector<at::Tensor> stacked;
    for (const Source& source : sources) stacked.push_back(dots[index(source.slot)]);  // a tied weight's are used again
    head->tangent(Tangents(sources, std::move(stacked), count));
  }
  Sink first(sources, bars, 1), second(sources, bar_dots, count);
  timed(size(), pass.second ? 3 : 2, [&] {
    head->backward(pass.first ? &first : nullptr, pass.second ? &second : nullptr, pass.hold, gauss_newton);
  });
}

void Sweeps::Impl::begin_run(const Cuts& cuts) {
  find_crossing(cuts);
  begin_values();
  runs.clear();
  runs.resize(size());
  shapes.assign(cuts.empty() ? 0 : index(list.slots), at::Tensor());
  fused = program.linear_head >= 0 && rows.rows < 0 && objective != nullptr && objective->rows_are_leading();
}

void Sweeps::Impl::clear_frames() {
  values.clear();
  dots.clear();
  bars.clear();
  bar_dots.clear();
}

void Sweeps::Impl::keep(bool for_gauss_newton) {
  kept = false;
  gauss_newton = for_gauss_newton;
  reached.clear();
  begin_run({});
  forward(0, size(), {true, false, true});
  make_head({true, false, true});
  bars = new_sums({});
  // Of a Gauss-Newton matrix the head alone knows what is kept: no adjoint leaves it.
  Sink nowhere({}, bars, 1);
  if (for_gauss_newton)
    head->backward(&nowhere, nullptr, /*keep=*/true, true);
  else
    head_backward({true, false, true});
  if (!for_gauss_newton) backward(0, size(), {true, false, true});
  clear_frames();
  kept = true;
}

double Sweeps::Impl::add_gradient(const std::vector<at::Tensor>& sums, const Cuts& cuts) {
  kept = false;
  gauss_newton = false;
  reached.clear();
  begin_run(cuts);
  std::vector<at::Tensor> stacked;
  for (const at::Tensor& sum : sums) stacked.push_back(sum.unsqueeze(0));
  bars = new_sums(stacked);
  sweep(cuts, {true, false, false}, {true, false, false});
  add_complex(bars, stacked);
  const double sum = head->sum();
  finish();
  return sum;
}

void Sweeps::Impl::add_products(const std::vector<at::Tensor>& v, const std::vector<at::Tensor>& products,
                                bool for_gauss_newton, const Cuts& cuts) {
  count = std::ranges::find_if(v, [](const at::Tensor& t) { return t.defined(); })->size(0);
  gauss_newton = for_gauss_newton;
  find_reached(products);
  if (!is_reached(program.output)) return;  // the objective does not depend on any of them
  if (!kept) begin_run(cuts);
  begin_dots(v);
  bar_dots = new_sums(products);
  if (kept) {
    forward(0, size(), {false, true, true});
    head_backward({false, true, true});
    backward(0, size(), {false, true, true});
  } else {
    bars = new_sums({});
    sweep(cuts, {true, true, false}, {!gauss_newton, true, false});
  }
  add_complex(bar_dots, products);
  if (kept)
    clear_frames();
  else
    finish();
}

void Sweeps::Impl::finish() {
  clear_frames();
  runs.clear();
  shapes.clear();
  head = nullptr;
}

Sweeps::Sweeps(const TangentProgram& program, std::vector<at::Tensor> inputs,
               std::shared_ptr<const RowObjective> objective, OutputRows rows)
    : impl_(std::make_unique<Impl>(program, std::move(inputs), std::move(objective), rows)) {}
Sweeps::~Sweeps() = default;
Sweeps::Sweeps(Sweeps&&) noexcept = default;
Sweeps& Sweeps::operator=(Sweeps&&) noexcept = default;

void Sweeps::keep(bool gauss_newton) {
  const SweepScope scope(impl_->program.program);
  impl_->keep(gauss_newton);
}

bool Sweeps::is_kept() const { return impl_->kept; }

double Sweeps::add_gradient(const std::vector<at::Tensor>& sums, const Cuts& cuts) {
  const SweepScope scope(impl_->program.program);
  return impl_->add_gradient(sums, cuts);
}

void Sweeps::add_products(const std::vector<at::Tensor>& v, const std::vector<at::Tensor>& products, bool gauss_newton,
                          const Cuts& cuts) {
  const SweepScope scope(impl_->program.program);
  impl_->add_products(v, products, gauss_newton, cuts);
}

}  // namespace hesspect

// The sweeps of one micro-batch over the list of nodes.
//
// Values, tangents, adjoints and their tangents lie in frames, one entry a slot, and go as soon as no node will read
// them. What a rule needs later it keeps itself, in its NodeRun. A segment's forward sweep is made twice: once on the
// way to the objective, where only what crosses a cut stays, and once more before the segment's backward sweep.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "head.h"
#include "hesspect/model/executor.h"
#include "program_impl.h"
#include "registry.h"

namespace hesspect {
namespace {

/// What a sweep does at each node.
struct Pass {
  bool first = false;   // values forwards, adjoints backwards
  bool second = false;  // their tangents
  bool hold = false;    // runs stay for what comes after
  bool again = false;   // of a segment that has been run before
};

}  // namespace

struct Sweeps::Impl {
  const TangentProgram::Impl& program;
  const NodeList& list;
  std::vector<at::Tensor> inputs;
  std::shared_ptr<const RowObjective> objective;
  OutputRows rows;

  std::vector<std::unique_ptr<NodeRun>> runs;  // per node
  std::unique_ptr<Head> head;
  Frame values;
  std::vector<at::Tensor> dots;     // [K, …] per slot
  std::vector<Sum> bars, bar_dots;  // per slot
  std::vector<bool> crosses;        // per slot: it is read behind a cut that lies behind its maker
  enum class Again { kAll, kArguments, kShapes, kNothing };
  std::vector<Again> again;        // per node of a segment that is run twice; none where nothing is cut
  std::vector<at::Tensor> shapes;  // per slot of these: of the value's shape and dtype, but without memory
  std::int64_t count = 1;          // K
  /// Per slot of a product of some parameters alone: it depends on one of them. Empty: all active slots do.
  std::vector<bool> reached;
  bool gauss_newton = false;
  bool kept = false;
  bool fused = false;                 // the head is that of a linear layer
  std::vector<Source> output_source;  // the head's where it is not

  Impl(const TangentProgram& the_program, std::vector<at::Tensor> the_inputs,
       std::shared_ptr<const RowObjective> the_objective, OutputRows the_rows)
      : program(the_program.impl()),
        list(program.list),
        inputs(std::move(the_inputs)),
        objective(std::move(the_objective)),
        rows(the_rows) {}

  std::size_t size() const { return list.nodes.size(); }
  /// Whether the node is run by the head.
  bool is_head(std::size_t n) const { return fused && static_cast<int>(n) == program.linear_head; }

  // --- frames ---

  void begin_values() {
    values = program.first_values(inputs);
    head = nullptr;
  }

  /// Which slots depend on the parameters whose products are wanted.
  void find_reached(const std::vector<at::Tensor>& products) {
    reached.clear();
    if (std::ranges::all_of(products, [](const at::Tensor& t) { return t.defined(); })) return;
    reached.assign(index(list.slots), false);
    const auto parameters = program.program.parameter_inputs();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i] && products[*parameters[i]].defined()) reached[index(list.inputs[i])] = true;
    for (const Node& node : list.nodes) {
      if (!node.active() || !is_reached(node)) continue;
      for (const int slot : node.outputs)
        if (slot >= 0) reached[index(slot)] = true;
    }
  }

  bool is_reached(std::span<const Source> sources) const {
    return reached.empty() ||
           std::ranges::any_of(sources, [&](const Source& source) { return reached[index(source.slot)]; });
  }
  bool is_reached(const Node& node) const { return is_reached(node.sources); }
  bool is_reached(int slot) const { return reached.empty() || (slot >= 0 && reached[index(slot)]); }
  bool is_reached(std::size_t begin, std::size_t end) const {
    for (std::size_t n = begin; n < end; ++n)
      if (is_reached(list.nodes[n])) return true;
    return false;
  }

  /// @param v  [K, shape] of each parameter; undefined ones are zero
  void begin_dots(const std::vector<at::Tensor>& v) {
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

  /// @param sums  [K, shape] of each parameter, to be added to; none, and undefined ones: its adjoints are not wanted
  std::vector<Sum> new_sums(const std::vector<at::Tensor>& sums) const {
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

  /// Adds what complex parameters got, as pairs of reals.
  void add_complex(const std::vector<Sum>& frame, const std::vector<at::Tensor>& sums) const {
    const auto parameters = program.program.parameter_inputs();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i] || !program.program.layout().entries()[*parameters[i]].is_complex()) continue;
      const at::Tensor& value = frame[index(list.inputs[i])].value;
      if (value.defined()) sums[*parameters[i]].add_(at::view_as_real(value.resolve_conj()));
    }
  }

  void find_crossing(const Cuts& cuts) {
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

  /// Of the segments that are run twice: a node whose output crosses a cut is there already the second time, and one
  /// whose output no rule looks into again need not be made.
  void find_what_is_run_again(const Cuts& cuts) {
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

  // --- one node ---

  template <class Work>
  void at_node(std::size_t n, Work&& work) const {
    try {
      work();
    } catch (...) {
      rethrow_for(list.nodes[n].instruction->origin, program.program.where());
    }
  }

  template <class Work>
  void timed(std::size_t n, std::size_t sweep, Work&& work) const {
    static constexpr std::array<const char*, 4> kSweeps = {"value", "tangent", "adjoint", "adjoint tangent"};
    const auto begin = Timeline::Clock::now();
    work();
    const auto end = Timeline::Clock::now();
    program.seconds[n][sweep] += std::chrono::duration<double>(end - begin).count();
    if (program.timeline != nullptr) program.timeline->add(program.names[n], kSweeps[sweep], begin, end);
  }

  Arguments arguments_of(std::size_t n) const {
    const Node& node = list.nodes[n];
    std::vector<c10::IValue> given;
    for (const Operand& operand : node.operands) given.push_back(materialise(operand, values));
    return {*node.instruction, node.sources, std::move(given), node.op ? &*node.op : nullptr};
  }

  void run_plainly(std::size_t n) {
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

  std::unique_ptr<NodeRun> new_run(std::size_t n) const {
    Arguments arguments = arguments_of(n);
    std::unique_ptr<NodeRun> run = program.rules[n].make != nullptr ? program.rules[n].make(arguments) : nullptr;
    if (run != nullptr) return run;
    if (program.rules[n].make != nullptr) program.turned_down[n] = true;
    return fallback(arguments);
  }

  void run_by_rule(std::size_t n) {
    std::unique_ptr<NodeRun> run = new_run(n);
    std::vector<at::Tensor> y = run->value();
    const Node& node = list.nodes[n];
    for (std::size_t i = 0; i < node.outputs.size() && i < y.size(); ++i)
      if (node.outputs[i] >= 0) values[index(node.outputs[i])] = std::move(y[i]);
    runs[n] = std::move(run);
  }

  Tangents tangents_of(const Node& node) const {
    std::vector<at::Tensor> stacked;
    for (const Source& source : node.sources) stacked.push_back(dots[index(source.slot)]);
    return {node.sources, std::move(stacked), count};
  }

  static bool any_defined(std::span<const at::Tensor> tensors) {
    return std::ranges::any_of(tensors, [](const at::Tensor& t) { return t.defined(); });
  }

  void carry_tangents(std::size_t n) {
    const Node& node = list.nodes[n];
    const Tangents x_dot = tangents_of(node);
    std::vector<at::Tensor> y_dot(node.outputs.size());
    if (any_defined(x_dot.all())) y_dot = runs[n]->tangent(x_dot);
    for (std::size_t i = 0; i < node.outputs.size() && i < y_dot.size(); ++i)
      if (node.outputs[i] >= 0) dots[index(node.outputs[i])] = std::move(y_dot[i]);
  }

  // --- sweeps ---

  /// The second run of a node in a segment, where its outputs are not made again.
  void run_again(std::size_t n, Pass pass) {
    const Node& node = list.nodes[n];
    if (again[n] == Again::kArguments || again[n] == Again::kShapes) timed(n, 0, [&] { runs[n] = new_run(n); });
    if (again[n] == Again::kArguments && pass.second) {
      const Tangents x_dot = tangents_of(node);
      if (any_defined(x_dot.all())) runs[n]->take(x_dot);
    }
    for (const int slot : node.outputs)
      if (slot >= 0 && !crosses[index(slot)]) values[index(slot)] = shapes[index(slot)];
  }

  void note_shapes(const Node& node) {
    for (const int slot : node.outputs) {
      if (slot < 0 || !values[index(slot)].isTensor()) continue;
      const at::Tensor& value = values[index(slot)].toTensor();
      if (value.defined()) shapes[index(slot)] = at::empty({}, value.options()).expand(value.sizes());
    }
  }

  /// @param begin, end  nodes
  void forward(std::size_t begin, std::size_t end, Pass pass) {
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

  /// The adjoints of a node's outputs, complete by now.
  static std::vector<at::Tensor> taken(const Node& node, std::vector<Sum>& frame) {
    std::vector<at::Tensor> tensors;
    for (const int slot : node.outputs) {
      tensors.push_back(slot < 0 ? at::Tensor() : std::move(frame[index(slot)].value));
      if (slot >= 0) frame[index(slot)] = Sum{};
    }
    return tensors;
  }

  void backward(std::size_t begin, std::size_t end, Pass pass) {
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

  // --- the head ---

  std::span<const Source> head_sources() const {
    return fused ? std::span<const Source>(list.nodes[index(program.linear_head)].sources) : output_source;
  }

  /// Makes the head of the values that the forward sweep has left.
  void make_head(Pass pass) {
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

  void head_backward(Pass pass) {
    const std::span<const Source> sources = head_sources();
    if (pass.second) {
      std::vector<at::Tensor> stacked;
      for (const Source& source : sources)
        stacked.push_back(dots[index(source.slot)]);  // a tied weight's are used again
      head->tangent(Tangents(sources, std::move(stacked), count));
    }
    Sink first(sources, bars, 1), second(sources, bar_dots, count);
    timed(size(), pass.second ? 3 : 2, [&] {
      head->backward(pass.first ? &first : nullptr, pass.second ? &second : nullptr, pass.hold, gauss_newton);
    });
  }

  // --- whole sweeps ---

  void begin_run(const Cuts& cuts) {
    find_crossing(cuts);
    begin_values();
    runs.clear();
    runs.resize(size());
    shapes.assign(cuts.empty() ? 0 : index(list.slots), at::Tensor());
    fused = program.linear_head >= 0 && rows.rows < 0 && objective->rows_are_leading();
  }

  /// Forwards and back again, with nothing kept from before.
  /// @param forwards, backwards  what is swept; `hold` is set here
  void sweep(const Cuts& cuts, Pass forwards, Pass backwards) {
    std::vector<std::size_t> bounds{0};
    bounds.insert(bounds.end(), cuts.begin(), cuts.end());
    bounds.push_back(size());
    const std::size_t last = bounds.size() - 2;
    forwards.hold = false;
    for (std::size_t s = 0; s < last; ++s) forward(bounds[s], bounds[s + 1], forwards);
    if (last > 0) find_what_is_run_again(cuts);
    for (std::size_t s = last + 1; s-- > 0;) {
      if (s < last && !is_reached(bounds[s], bounds[s + 1])) {
        forget(bounds[s], bounds[s + 1]);
        continue;
      }
      forwards.hold = true;
      forwards.again = s < last;
      forward(bounds[s], bounds[s + 1], forwards);
      if (s == last) {
        make_head(forwards);
        head_backward(backwards);
      }
      backward(bounds[s], bounds[s + 1], backwards);
      forget(bounds[s], bounds[s + 1]);
    }
  }

  /// Lets go what a segment's nodes made: only they and later ones read it.
  void forget(std::size_t begin, std::size_t end) {
    for (std::size_t n = begin; n < end; ++n) {
      runs[n].reset();
      for (const int slot : list.nodes[n].outputs) {
        if (slot < 0) continue;
        values[index(slot)] = c10::IValue();
        if (!dots.empty()) dots[index(slot)] = at::Tensor();
      }
    }
  }

  void clear_frames() {
    values.clear();
    dots.clear();
    bars.clear();
    bar_dots.clear();
  }

  void keep(bool for_gauss_newton) {
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

  double add_gradient(const std::vector<at::Tensor>& sums, const Cuts& cuts) {
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

  void add_products(const std::vector<at::Tensor>& v, const std::vector<at::Tensor>& products, bool for_gauss_newton,
                    const Cuts& cuts) {
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

  void finish() {
    clear_frames();
    runs.clear();
    shapes.clear();
    head = nullptr;
  }
};

namespace {

/// What every sweep runs under. Calls go past autograd's own keys, which would only look for nothing to do, at each of
/// thousands of them.
struct SweepScope {
  explicit SweepScope(const Program& program) : default_dtype(program.default_dtype()) {}
  at::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView past_autograd;
  DefaultDtypeScope default_dtype;
};

}  // namespace

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

// The state of one micro-batch's sweeps, shared by sweeps.cpp (whole sweeps) and segments.cpp (segments).
//
// Values, tangents, adjoints and their tangents lie in frames, one entry a slot, and go as soon as no node will read
// them. What a rule needs later it keeps itself, in its NodeRun. A segment's forward sweep is made twice: once on the
// way to the objective, where only what crosses a cut stays, and once more before the segment's backward sweep.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "head.h"
#include "hesspect/model/executor.h"
#include "hesspect/tangent/segments.h"
#include "program_impl.h"
#include "registry.h"

namespace hesspect {

/// What a sweep does at each node.
struct Pass {
  bool first = false;   // values forwards, adjoints backwards
  bool second = false;  // their tangents
  bool hold = false;    // runs stay for what comes after
  bool again = false;   // of a segment that has been run before
};

/// What every sweep runs under. Calls go past autograd's own keys, which would only look for nothing to do, at each of
/// thousands of them.
struct SweepScope {
  explicit SweepScope(const Program& program) : default_dtype(program.default_dtype()) {}
  at::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView past_autograd;
  DefaultDtypeScope default_dtype;
};

/// Which slots depend on these parameters of the layout.
std::vector<bool> reached_slots(const TangentProgram::Impl& program, const std::vector<bool>& chosen);

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
  bool fused = false;  // the head is that of a linear layer
  /// What has come from host memory for the segment that is worked on: the copies there.
  struct Brought {
    int slot = -1;
    at::Tensor value, dot;
  };
  std::vector<Brought> brought;
  bool crossing_on_host = false;
  at::Device inputs_device = at::kCPU;                   // that the sweeps work on
  const std::function<void()>* between_nodes = nullptr;  // of the segment that is worked on
  std::vector<Source> output_source;                     // the head's where it is not

  Impl(const TangentProgram& the_program, std::vector<at::Tensor> the_inputs,
       std::shared_ptr<const RowObjective> the_objective, OutputRows the_rows)
      : program(the_program.impl()),
        list(program.list),
        inputs(std::move(the_inputs)),
        objective(std::move(the_objective)),
        rows(the_rows),
        inputs_device(program.program.options().device) {}

  std::size_t size() const { return list.nodes.size(); }
  /// Whether the node is run by the head.
  bool is_head(std::size_t n) const { return fused && static_cast<int>(n) == program.linear_head; }

  // --- frames ---

  void begin_values();

  /// Which slots depend on the parameters whose products are wanted.
  void find_reached(const std::vector<at::Tensor>& products);

  bool is_reached(std::span<const Source> sources) const;
  bool is_reached(const Node& node) const { return is_reached(node.sources); }
  bool is_reached(int slot) const { return reached.empty() || (slot >= 0 && reached[index(slot)]); }
  bool is_reached(std::size_t begin, std::size_t end) const;

  /// @param v  [K, shape] of each parameter; undefined ones are zero
  void begin_dots(const std::vector<at::Tensor>& v);

  /// @param sums  [K, shape] of each parameter, to be added to; none, and undefined ones: its adjoints are not wanted
  std::vector<Sum> new_sums(const std::vector<at::Tensor>& sums) const;

  /// Adds what complex parameters got, as pairs of reals.
  void add_complex(const std::vector<Sum>& frame, const std::vector<at::Tensor>& sums) const;

  void find_crossing(const Cuts& cuts);

  /// Of the segments that are run twice: a node whose output crosses a cut is there already the second time, and one
  /// whose output no rule looks into again need not be made.
  void find_what_is_run_again(const Cuts& cuts);

  // --- one node ---

  template <class Work>
  void at_node(std::size_t n, Work&& work) const {
    if (between_nodes != nullptr) (*between_nodes)();
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

  Arguments arguments_of(std::size_t n) const;

  void run_plainly(std::size_t n);

  std::unique_ptr<NodeRun> new_run(std::size_t n) const;

  void run_by_rule(std::size_t n);

  Tangents tangents_of(const Node& node) const;

  static bool any_defined(std::span<const at::Tensor> tensors);

  void carry_tangents(std::size_t n);

  // --- sweeps ---

  /// The second run of a node in a segment, where its outputs are not made again.
  void run_again(std::size_t n, Pass pass);

  void note_shapes(const Node& node);

  /// @param begin, end  nodes
  void forward(std::size_t begin, std::size_t end, Pass pass);

  /// The adjoints of a node's outputs, complete by now.
  static std::vector<at::Tensor> taken(const Node& node, std::vector<Sum>& frame);

  void backward(std::size_t begin, std::size_t end, Pass pass);

  // --- the head ---

  std::span<const Source> head_sources() const;

  /// Makes the head of the values that the forward sweep has left.
  void make_head(Pass pass);

  void head_backward(Pass pass);

  // --- whole sweeps ---

  void begin_run(const Cuts& cuts);

  /// Forwards and back again, with nothing kept from before.
  /// @param forwards, backwards  what is swept; `hold` is set here
  void sweep(const Cuts& cuts, Pass forwards, Pass backwards);

  /// Lets go what a segment's nodes made: only they and later ones read it.
  void forget(std::size_t begin, std::size_t end);

  // --- a segment at a time, whose parameters come and go (segments.h) ---

  std::vector<std::size_t> bounds;  // of the segments: nodes
  std::int64_t vectors = 0;         // K; 0: of a gradient

  /// Sets or takes away what a segment reads and adds to.
  void enter(const SegmentTensors& tensors);
  void leave(const SegmentTensors& tensors);
  void part_from_parameters(std::size_t s, const SegmentTensors& tensors);
  void begin_segments(const Cuts& cuts, std::int64_t of_vectors, bool of_gauss_newton, const std::vector<bool>& chosen);
  void segment_forwards(std::size_t s, const SegmentTensors& tensors);
  void let_go_of_inner(std::size_t first, std::size_t last);
  void send_to_host(std::size_t s);
  void bring_from_host(std::size_t s);
  void let_go_of_brought();
  void segment_backwards(std::size_t s, const SegmentTensors& tensors);

  void clear_frames();

  void keep(bool for_gauss_newton);

  double add_gradient(const std::vector<at::Tensor>& sums, const Cuts& cuts);

  void add_products(const std::vector<at::Tensor>& v, const std::vector<at::Tensor>& products, bool for_gauss_newton,
                    const Cuts& cuts);

  void finish();
};

}  // namespace hesspect

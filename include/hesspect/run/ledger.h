// All that a run knows: what its groups have reported, and what the policies look up in it. On rank 0, with one owner,
// the dealer; a checkpoint's run state is its LedgerState written down.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "hesspect/core/input_sharpness.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/io/result_file.h"
#include "hesspect/plan/plan.h"
#include "hesspect/run/goals.h"
#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/estimates.h"
#include "hesspect/spectrum/loss_changes.h"

namespace hesspect {

/// A Lanczos run that is done.
struct FinishedProbe {
  ProbeQuadrature quadrature;
  std::optional<EigenResult> eigenvalues;  // of probe 0's run
};

/// A diagonal block that has been analysed.
struct FinishedBlock {
  std::string name;
  Analysis analysis;
  double product_s = 0;                // wall time inside its products
  std::optional<LossChanges> changes;  // where they are asked for
};

/// The Krylov space that the trace's samples are corrected by.
struct DeflationState {
  std::int64_t rank = 0;
  double captured = 0;         // of the trace
  double captured_sq = 0;      // of the matrix's squared norm
  std::vector<double> layers;  // of each layer's
};

/// What a group has spent since this start.
struct Tally {
  std::int64_t products = 0;
  double product_s = 0;
  double communication_s = 0;
  std::int64_t block_products = 0;  // with blocks, those of one under way included
};

/// The plan that a run follows, and the ranks it was made for.
struct RunLayout {
  Plan plan;
  int world = 1;
  int threads = 1;  // of a rank
  std::string device = "cpu";
  std::int64_t row_groups = 0;  // that products are told apart by: as the run's first start has them
};

/// As text for messages, and back. @throws InputError for text that is none
std::string to_text(const RunLayout& layout);
RunLayout run_layout_from(const std::string& text);

/// Rows that `hesspect inputs` has finished.
struct InputsProgress {
  std::vector<InputRow> rows;               // in no order
  std::int64_t most_products = 0;           // that one of their micro-batches took
  std::vector<std::int64_t> micro_batches;  // of each rank, in rows
};

/// As text for messages, and back. @throws InputError for text that is none
std::string to_text(const InputsProgress& progress);
InputsProgress inputs_progress_from(const std::string& text);

/// Losses that `hesspect landscape` has taken.
struct LandscapeProgress {
  /// Of each direction: its product with a random vector, by which it is known again, length and sign included.
  std::vector<double> marks;
  std::vector<double> spans;   // low and high of each direction
  std::vector<double> losses;  // in the order in which they are taken
};

/// As text for messages, and back. @throws InputError for text that is none
std::string to_text(const LandscapeProgress& progress);
LandscapeProgress landscape_progress_from(const std::string& text);

/// What of a run is written down.
struct LedgerState {
  std::string run_id;  // drawn at the run's first start
  std::string config;  // ini text of everything that decides the result
  std::vector<SourceFile> model, weights, data;
  RunLayout layout;
  std::vector<FinishedProbe> finished;
  std::vector<TraceSample> samples;      // of products taken for the trace, and of the symmetry check
  std::vector<DeflatedSample> deflated;  // of these and of the finished probes', as far as they have been corrected
  std::optional<DeflationState> deflation;
  std::optional<TraceEstimate> trace;      // of a method that chooses its own vectors
  std::optional<EigenResult> eigenvalues;  // of a block or power run
  std::vector<FinishedBlock> blocks;
  std::optional<InputsProgress> inputs;
  std::optional<LandscapeProgress> landscape;
  double symmetry_error = 0;
  double curvature_scale = 0;  // mean of ‖Hz‖ / ‖z‖ over the symmetry check's products; 0: not checked yet
  std::int64_t products = 0;   // Hessian-vector products so far, all groups
  double product_s = 0;        // in them, summed over groups
  double communication_s = 0;
  double elapsed_s = 0;  // wall time of all starts
  std::int64_t starts = 1;
  bool overwrite = false;  // the run may replace an earlier result
};

/// The run state that a checkpoint folder holds. As CheckpointFolder::read_run.
/// @throws InputError also where the layout in it is none
std::optional<LedgerState> read_state(const CheckpointFolder& folder, std::vector<std::string>& warnings);

/// Writes its next generation. As CheckpointFolder::write_run.
void write_state(CheckpointFolder& folder, const LedgerState& state);

/// Forgets the samples of the trace's own, beyond the symmetry check's: their products have to be taken again.
void give_up_own_samples(LedgerState& state);

/// The order in which the trace counts its samples, whoever takes them and whenever: the symmetry check's come first,
/// then the first products of the Lanczos runs that are made in any case, but for the one whose basis corrects them,
/// then products of the trace's own. A diagonal needs the products themselves, so that it counts its own alone.
class SampleOrder {
 public:
  explicit SampleOrder(const Goals& goals);
  /// The probe number of the i-th sample.
  std::int64_t probe(std::int64_t i) const;
  /// How many samples, the first ones, cost no product of the trace's own.
  std::int64_t free() const { return free_; }

 private:
  std::int64_t first_run_ = 0;
  std::int64_t free_ = 0;
};

/// Trace samples in their order as far as they have come without a gap, and their sums.
struct SamplePrefix {
  std::vector<DeflatedSample> samples;  // without the layers, which only the answer needs
  std::int64_t generation = 0;          // another one where all were given up
};

class Ledger {
 public:
  Ledger(LedgerState state, const Goals& goals, int groups);

  // What reports bring in.
  void add(FinishedProbe probe);
  /// Takes the place of an earlier sample of the same probe.
  void add(TraceSample sample);
  void add(DeflatedSample sample);
  /// Probe 0's basis can correct samples from here on. Samples that another space has corrected are given up.
  void set_deflation(DeflationState deflation);
  void set_trace(TraceEstimate trace);
  void set_eigenvalues(EigenResult eigenvalues);
  void add(FinishedBlock block) { state_.blocks.push_back(std::move(block)); }
  void set_symmetry(double error, double curvature_scale);
  void set_sources(std::vector<SourceFile> model, std::vector<SourceFile> weights, std::vector<SourceFile> data);
  void set_tally(int group, const Tally& tally);
  void set_diagonal_written() { diagonal_written_ = true; }

  /// As it is to be written down now. @param elapsed_s  of this start
  LedgerState state(double elapsed_s) const;

  /// nullptr where there is none with this probe number.
  const FinishedProbe* finished(std::int64_t probe) const;
  const TraceSample* sample(std::int64_t probe) const;
  const DeflatedSample* deflated(std::int64_t probe) const;
  const std::optional<DeflationState>& deflation() const { return state_.deflation; }
  const std::optional<TraceEstimate>& trace() const { return state_.trace; }
  const std::optional<EigenResult>& eigenvalues() const { return state_.eigenvalues; }
  /// nullptr where it is not finished.
  const FinishedBlock* block(const std::string& name) const;
  /// Group 0 holds probe 0's basis, in this start.
  bool has_basis() const { return has_basis_; }
  bool diagonal_written() const { return diagonal_written_; }

  /// Lanczos runs 0, 1, … that are finished without a gap, and the products of the first `runs` as far as they are.
  std::int64_t finished_runs() const { return finished_runs_; }
  std::int64_t products_of_runs(std::int64_t runs) const;
  /// Steps of the quadratures of the first `runs`, which are finished.
  std::int64_t quadrature_steps(std::int64_t runs) const;
  /// Products of the symmetry check, of the first `runs` Lanczos runs and of an eigenvalue run of its own.
  std::int64_t products_before_trace(std::int64_t runs) const;
  /// All products with the whole matrix so far.
  std::int64_t products() const;
  /// With blocks, but for those of blocks that an earlier start has not finished.
  std::int64_t block_products() const;

  const SampleOrder& order() const { return order_; }
  const SamplePrefix& prefix() const { return prefix_; }

 private:
  void extend_prefix();

  LedgerState state_;
  SampleOrder order_;
  bool corrects_ = false;       // samples count when they have been corrected
  std::vector<Tally> tallies_;  // by group
  std::unordered_map<std::int64_t, std::size_t> finished_at_, sample_at_, deflated_at_;  // by probe number
  std::int64_t finished_runs_ = 0;
  SamplePrefix prefix_;
  bool has_basis_ = false, diagonal_written_ = false;
  std::int64_t block_products_before_ = 0;  // of earlier starts' blocks
};

/// Products of a finished run. After restarts it has taken more steps than its quadrature has.
std::int64_t products_of(const FinishedProbe& probe);

/// Products with a finished block.
std::int64_t products_of(const FinishedBlock& block);

}  // namespace hesspect

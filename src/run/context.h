// What the tasks of a group work with, and what lives from one task to the next.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/comm/desk.h"
#include "hesspect/curvature/loss_surface.h"
#include "hesspect/io/vectors_file.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/run/lanczos_checkpoint.h"
#include "hesspect/run/work.h"
#include "hesspect/spectrum/deflation.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "messages.h"

namespace hesspect {

/// The group has stopped as it was asked to: unwinds the algorithms that were under way. It is no error.
struct Stopped {};

/// A Lanczos run between its start and its end.
struct ActiveRun {
  std::int64_t probe = 0;
  std::unique_ptr<Lanczos> run;
};

/// Probe 0's finished run, and the trace's samples corrected by its basis.
struct DeflationBasis {
  std::unique_ptr<Lanczos> run;
  KrylovDeflation space;
};

/// Sums over the trace's own probes, for the diagonal.
struct DiagonalSums {
  at::Tensor sum, square;  // [chunk], double; undefined before the first sample
  std::int64_t count = 0;
};

class Context {
 public:
  Context(const WorkContext& work, Desk& desk);

  const Goals& goals;
  const Plan& plan;
  HessianOperator& op;
  Communicator& comm;  // of the group
  LanczosCheckpoint checkpoint;
  const LayerOffsets layers;  // empty where no layers are asked for
  const std::vector<at::Tensor>& start_vectors;
  Phases* const phases;

  std::vector<ActiveRun> active;
  std::unique_ptr<DeflationBasis> deflation;
  DiagonalSums diagonal;
  std::int64_t block_products = 0;
  std::unique_ptr<LossSurface> surface;  // once the loss beside the parameters is asked for

  /// Whether this rank speaks for the group.
  bool leads() const { return comm.rank() == 0; }
  /// Sends a report from the group's first rank; those of the others are dropped. Not collective.
  /// @return whether the run is to stop, on the first rank
  bool report(Report report);
  void say(const std::string& text, bool warning = false) { report(Said{text, warning}); }
  /// Collective over the group. @throws as between_products, where the run stops
  Task next_task();
  /// Before or after each product: tells the dealer, hears whether to stop, writes checkpoints. Collective over the
  /// group.
  /// @throws Stopped; InputError where the checkpoint of a stopped run cannot be written
  void between_products();

  /// A random vector by its number, [chunk]. Collective over the group.
  at::Tensor probe(std::int64_t number) const;
  LanczosOptions lanczos_options() const;
  EigenOptions eigen_options() const;
  /// Writes vectors [chunk] each under the parameters' names, made one at a time. Collective over the group.
  /// @param which  of the vectors, in the file's order; nothing: a unit vector of a parameter that is in no vector,
  ///               another one each time
  void write_vectors(const std::string& path, VectorsInfo info, std::span<const std::optional<std::size_t>> which,
                     const VectorSource& vectors) const;

 private:
  Tally tally() const;
  void write_checkpoint(bool stop);

  const WorkContext& work_;
  Desk& desk_;
  Timer since_report_, since_checkpoint_;
  bool has_told_digests_ = false;  // of the files that the group's ranks have hashed
  bool warned_ = false;            // that the last checkpoint could not be written
};

// The tasks. Each is collective over the group and throws as the algorithms that it runs.
void perform(Context& context, const Wait& task);
void perform(Context& context, const Done& task);
void perform(Context& context, const RunLanczos& task);
void perform(Context& context, const RebuildBasis& task);
void perform(Context& context, const SampleTrace& task);
void perform(Context& context, const CorrectSamples& task);
void perform(Context& context, const SolveEigen& task);
void perform(Context& context, const EstimateTrace& task);
void perform(Context& context, const WriteDiagonal& task);
void perform(Context& context, const AnalyseBlock& task);

/// Measures the true residuals of pairs and writes their vectors, as far as they are asked for and there are any.
/// @param are_measured  the residuals are known already, from products with the whole space
/// @return the eigenvalues of all parameters, those that vectors leave out included
EigenResult measured_and_written(Context& context, EigenResult result, const VectorSource& vectors,
                                 bool are_measured = false);

/// Two products with the first two of the trace's probes.
/// @throws InputError where products are so far from symmetric that the results would mean nothing
void check_symmetry(Context& context);

}  // namespace hesspect

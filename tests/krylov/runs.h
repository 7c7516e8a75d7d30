// Runs with restarts, recorded at any point: for the tests of resumption.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "hesspect/krylov/lanczos.h"
#include "krylov/test_operators.h"

namespace hesspect::testing {

/// What a checkpoint would hold of a run, on this rank.
struct Saved {
  std::string record;
  std::vector<at::Tensor> rows, running;

  static Saved of(const Lanczos& run) {
    Saved saved;
    const LanczosRecord record = run.record();
    saved.record = to_bytes(record);
    for (std::int64_t i = 0; i < record.rows; ++i)
      saved.rows.push_back(run.stored().basis(record.first_row + i).clone());
    for (std::int64_t i = 0; i < record.running; ++i) saved.running.push_back(run.stored().running(i).clone());
    return saved;
  }

  Lanczos resume(LinearOperator& op, const LanczosOptions& options) const {
    const LanczosRecord from = lanczos_record_from(record);
    return Lanczos::resumed(op, from,
                            {[&](std::int64_t row) { return rows.at(static_cast<std::size_t>(row - from.first_row)); },
                             [&](std::int64_t i) { return running.at(static_cast<std::size_t>(i)); }},
                            options);
  }
};

/// Everything that can be seen of a run's scalars.
struct Scalars {
  Tridiagonal t;
  double rounding = 0;
  std::vector<double> ritz;
  bool operator==(const Scalars&) const = default;

  static Scalars of(const Lanczos& run) {
    Scalars now{run.t(), run.rounding(), {}};
    for (const RitzPair& pair : run.t().ritz_pairs()) now.ritz.insert(now.ritz.end(), {pair.value, pair.residual});
    return now;
  }
};

/// A vector for the block after `blocks` others: of another frequency each, so that all are independent.
inline at::Tensor fresh_vector(const LinearOperator& op, std::size_t blocks) {
  const Shard& shard = op.shard();
  at::Tensor local = at::zeros({shard.chunk}, at::kDouble);
  double* out = local.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < shard.size(); ++i)
    out[i] = std::sin((3.7 + 1.1 * static_cast<double>(blocks)) * static_cast<double>(shard.begin() + i + 1));
  return local.to(op.options().dtype());
}

/// Takes a run to `steps` steps, `stride` at a time, restarting where its space closes. `look` is called between.
inline void drive(LinearOperator& op, Lanczos& run, std::int64_t steps, std::int64_t stride,
                  const std::function<void()>& look = {}) {
  while (run.steps() < steps) {
    if (look) look();
    if (run.t().breakdown() && !run.restart(fresh_vector(op, run.t().blocks.size()))) break;
    if (look) look();
    run.extend(op, std::min(stride, steps - run.steps()));
  }
  if (look) look();
}

/// `drive` with a basis of at most eight rows and the next one: thick restarts keep the two lowest and the three
/// highest pairs.
inline void drive_thick(LinearOperator& op, Lanczos& run, std::int64_t steps, std::int64_t stride,
                        const std::function<void()>& look = {}) {
  constexpr std::int64_t kRows = 8;
  while (run.steps() < steps) {
    if (look) look();
    if (run.t().breakdown() && !run.restart(fresh_vector(op, run.t().blocks.size()))) break;
    if (look) look();
    if (run.t().rows() >= kRows) {
      const auto rows = static_cast<std::size_t>(run.t().rows());
      const std::size_t keep[] = {0, 1, rows - 3, rows - 2, rows - 1};
      run.thick_restart(keep);
    }
    if (look) look();
    run.extend(op, std::min({stride, steps - run.steps(), std::max<std::int64_t>(1, kRows - run.t().rows())}));
  }
  if (look) look();
}

}  // namespace hesspect::testing

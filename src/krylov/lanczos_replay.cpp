// Recorded runs: what is written down of a run, and how a resumed one takes its recorded steps again.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos.h"
#include "lanczos_record.h"

namespace hesspect {
namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw InputError("a recorded Lanczos run can't be resumed: " + what);
}

void copy_shard(const at::Tensor& from, at::Tensor to, const std::string& name) {
  require(from.numel() == to.numel() && from.scalar_type() == to.scalar_type(),
          name + " has " + std::to_string(from.numel()) + " entries of " + c10::toString(from.scalar_type()) +
              " on a rank, not " + std::to_string(to.numel()) + " of " + c10::toString(to.scalar_type()));
  to.copy_(from);
}

}  // namespace

Lanczos Lanczos::resumed(LinearOperator& op, const LanczosRecord& record, const StoredVectors& stored,
                         const LanczosOptions& options) {
  const at::NoGradGuard no_grad;
  Lanczos run(op, options);
  run.recorded_ = record;
  run.options_.breakdown_tolerance = record.breakdown_tolerance;
  run.start_norm_sq_ = record.start_norm_sq;
  agree(*run.comm_, [&] { run.load(stored); });
  run.blocks_.push_back(Block{});
  return run;
}

void Lanczos::load(const StoredVectors& stored) {
  const LanczosRecord& record = recorded_;
  const std::string flaw = flaw_of(record);
  require(flaw.empty(), flaw);
  require(record.n == n_, "it is of " + std::to_string(record.n) + " parameters, not of " + std::to_string(n_));
  require(record.full == full(), record.full ? "it has full re-orthogonalisation, this one none"
                                             : "it has no re-orthogonalisation, this one full");
  const std::int64_t running = narrow() ? std::min<std::int64_t>(2, record.rows) : 0;
  require(record.running == running, "its vectors are stored at another precision than this one's");

  basis_.reserve(record.rows);
  for (std::int64_t i = 0; i < record.rows; ++i)
    copy_shard(stored.basis(record.first_row + i), basis_.append(), "row " + std::to_string(record.first_row + i));
  if (!apart_) {
    current_ = basis_.row(record.rows - 1);
    return;
  }
  if (!narrow()) {
    current_.copy_(basis_.row(record.rows - 1));
    if (record.rows > 1) previous_.copy_(basis_.row(record.rows - 2));
    return;
  }
  for (std::int64_t i = 0; i < running; ++i)
    copy_shard(stored.running(i), i + 1 == running ? current_ : previous_, "running vector " + std::to_string(i));
}

std::int64_t Lanczos::replay_left() const {
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(recorded_.alpha.size()) - steps());
}

/// Something of the record is still to come: steps, or a block that has only begun.
bool Lanczos::replaying() const { return replay_left() > 0 || blocks_.size() < recorded_.blocks.size(); }

/// A thick restart, where the record has one here, or a step as it was. In the record β of a block's last step is 0
/// where a restart has followed; at the step itself it was the residual.
void Lanczos::take_again() {
  if (thick_restart_again()) return;
  const std::size_t j = alpha_.size();
  const LanczosRecord::Block& block = recorded_.blocks[blocks_.size() - 1];
  const bool last = steps() + 1 == block.end;
  commit(recorded_.alpha[j], last ? block.residual_norm : recorded_.beta[j], recorded_.product_norm[j],
         last && block.closed);
}

bool Lanczos::begin_recorded_block() {
  if (blocks_.size() >= recorded_.blocks.size()) return false;
  blocks_.push_back(Block{steps(), steps(), false, 0});
  return true;
}

/// The recorded thick restart at this step, if there is one.
bool Lanczos::thick_restart_again() {
  if (blocks_.size() >= recorded_.blocks.size()) return false;
  const LanczosRecord::Block& block = recorded_.blocks[blocks_.size() - 1];
  if (block.closed || block.end != steps()) return false;
  begin_thick(recorded_.thick_restarts[thick_.size()]);
  return true;
}

LanczosRecord Lanczos::record() const {
  if (replaying()) return recorded_;
  LanczosRecord record;
  record.n = n_;
  record.full = full();
  record.breakdown_tolerance = options_.breakdown_tolerance;
  record.start_norm_sq = start_norm_sq_;
  record.alpha = alpha_;
  record.beta = beta_;
  record.product_norm = product_norm_;
  for (const Block& block : blocks_)
    record.blocks.push_back({block.begin, block.end, block.closed, block.residual_norm});
  record.thick_restarts = thick_;
  record.first_row = first_row();
  record.rows = basis_.rows();
  record.running = narrow() ? std::min<std::int64_t>(2, basis_.rows()) : 0;
  return record;
}

std::int64_t Lanczos::first_row() const {
  if (replaying()) return recorded_.first_row;
  if (full()) return first_row_;
  // The last row is q_m, or q_{m−1} where the space has closed.
  return steps() + (breakdown() ? 0 : 1) - basis_.rows();
}

at::Tensor Lanczos::stored_row(std::int64_t row) const { return basis_.row(row - first_row()); }

at::Tensor Lanczos::running_vector(std::int64_t i) const {
  return i + 1 == std::min<std::int64_t>(2, basis_.rows()) ? current_ : previous_;
}

}  // namespace hesspect

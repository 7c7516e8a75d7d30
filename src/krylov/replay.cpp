#include <algorithm>

#include "hesspect/krylov/lanczos_record.h"

namespace hesspect {

std::int64_t Replay::steps_left(const Tridiagonal& t) const {
  return std::max<std::int64_t>(0, recorded_.steps() - t.steps());
}

bool Replay::over(const Tridiagonal& t) const {
  return steps_left(t) == 0 && t.blocks.size() >= recorded_.blocks.size();
}

// In the record β of a block's last step is 0 where a fresh vector has followed; at the step itself it was the
// residual.
void Replay::take_next(Tridiagonal& t) const {
  if (restart_thick(t)) return;
  const std::size_t j = t.alpha.size();
  const Tridiagonal::Block& block = recorded_.blocks[t.blocks.size() - 1];
  const bool last = t.steps() + 1 == block.end;
  t.add_step(recorded_.alpha[j], last ? block.residual_norm : recorded_.beta[j], recorded_.product_norm[j],
             last && block.closed);
}

bool Replay::begin_block(Tridiagonal& t) const {
  if (t.blocks.size() >= recorded_.blocks.size()) return false;
  t.begin_block();
  return true;
}

bool Replay::restart_thick(Tridiagonal& t) const {
  if (t.blocks.size() >= recorded_.blocks.size()) return false;
  const Tridiagonal::Block& block = recorded_.blocks[t.blocks.size() - 1];
  if (block.closed || block.end != t.steps()) return false;
  t.restart_thick(recorded_.thick_restarts[t.thick_restarts.size()]);
  return true;
}

}  // namespace hesspect

#include "head.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "hesspect/tangent/strided.h"
#include "linear_layer.h"
#include "rounded_products.h"

namespace hesspect {
namespace {

/// Bytes of one chunk of an output: a few of them stay in a core's cache. Of a large vocabulary a chunk has more, for
/// each one reads the weights, and reads and writes their sum: rows enough to make that up.
constexpr std::int64_t kChunkBytes = 1 << 20;
constexpr std::int64_t kFewestRows = 256, kMostOfThem = 1024;
/// In segments, where memory is short: a few per cent of the time for so much less of it.
constexpr std::int64_t kRowsOfSmall = 128;

class PlainHead final : public Head {
 public:
  PlainHead(const at::Tensor& z, std::shared_ptr<const RowObjective> objective, OutputRows rows)
      : z_(z), objective_(std::move(objective)), rows_(rows) {}

  void tangent(const Tangents& x_dot) override { z_dot_ = x_dot.at(0); }

  void backward(Sink* x_bar, Sink* x_bar_dot, bool keep, bool gauss_newton) override {
    (void)gauss_newton;
    if (!state_.defined()) {
      shape_ = z_.sizes().vec();
      options_ = z_.options();
      state_ = rows_of(z_.unsqueeze(0))[0].clone(at::MemoryFormat::Contiguous);
      z_ = at::Tensor();
      sum_ = objective_->prepare(state_, 0);
    }
    if (x_bar != nullptr) {
      at::Tensor z_bar = at::empty_like(state_);
      objective_->adjoint(state_, 0, z_bar);
      x_bar->add(0, output_of(z_bar.unsqueeze(0)));
    }
    const at::Tensor z_dot = std::move(z_dot_);
    z_dot_ = at::Tensor();
    if (x_bar_dot != nullptr && z_dot.defined() && objective_->is_curved()) {
      at::Tensor out = rows_of(z_dot).clone(at::MemoryFormat::Contiguous);
      objective_->adjoint_tangent(state_, 0, out, out);
      x_bar_dot->add(0, output_of(out));
    }
    if (!keep) state_ = at::Tensor();
  }

 private:
  at::Tensor used(const at::Tensor& stacked) const {
    return rows_.rows < 0 ? stacked : stacked.movedim(rows_.batch_dim + 1, 1).narrow(1, 0, rows_.rows);
  }
  at::Tensor rows_of(const at::Tensor& stacked) const { return objective_->as_rows(used(stacked)); }

  /// Rows back in the output's shape, zeros where the objective does not look.
  at::Tensor output_of(const at::Tensor& rows) const {
    const at::Tensor part = objective_->from_rows(rows);
    if (rows_.rows < 0) return part;
    if (shape_[static_cast<std::size_t>(rows_.batch_dim)] == rows_.rows) return part.movedim(1, rows_.batch_dim + 1);
    std::vector<std::int64_t> sizes = shape_;
    sizes.insert(sizes.begin(), rows.size(0));
    at::Tensor whole = at::zeros(sizes, options_);
    used(whole).copy_(part);
    return whole;
  }

  at::Tensor z_, state_, z_dot_;
  std::shared_ptr<const RowObjective> objective_;
  OutputRows rows_;
  std::vector<std::int64_t> shape_;
  at::TensorOptions options_;
};

class LinearHead final : public Head {
 public:
  LinearHead(LinearLayer layer, std::shared_ptr<const RowObjective> objective, bool small)
      : layer_(std::move(layer)), objective_(std::move(objective)) {
    const std::int64_t row_bytes = objective_->columns() * static_cast<std::int64_t>(layer_.x.element_size());
    chunk_ = std::max(small ? kRowsOfSmall : std::clamp(2 * layer_.x.size(1), kFewestRows, kMostOfThem),
                      kChunkBytes / std::max<std::int64_t>(1, row_bytes));
  }

  void tangent(const Tangents& x_dot) override { layer_.take(x_dot); }

  void backward(Sink* x_bar, Sink* x_bar_dot, bool keep, bool gauss_newton) override {
    const std::int64_t rows = objective_->rows(), columns = objective_->columns(), count = layer_.count;
    const at::TensorOptions options = layer_.x.options();
    const bool made = state_.defined();
    if (!made && keep) state_ = at::empty({rows, columns}, options);
    if (!made) sum_ = 0;
    const bool is_second = x_bar_dot != nullptr && layer_.has_tangents();
    const bool needs_adjoint = x_bar != nullptr || (is_second && !gauss_newton);
    const LayerSums first(layer_, x_bar, 1), second(layer_, is_second ? x_bar_dot : nullptr, count);
    const std::int64_t chunk = std::min(chunk_, rows);
    const at::Tensor room = state_.defined() ? at::Tensor() : at::empty({chunk, columns}, options);
    const at::Tensor adjoint_room = needs_adjoint ? at::empty({chunk, columns}, options) : at::Tensor();
    const at::Tensor tangent_room = is_second ? at::empty({count, chunk, columns}, options) : at::Tensor();
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const std::int64_t r = std::min(chunk, rows - begin);
      const at::Tensor x = narrowed(layer_.x, 0, begin, r);
      at::Tensor z = state_.defined() ? narrowed(state_, 0, begin, r) : narrowed(room, 0, 0, r);
      if (!made) {
        multiply(z, x, turned(layer_.w), false);
        if (layer_.bias.defined()) z.add_(layer_.bias);
        sum_ += objective_->prepare(z, begin);
      }
      at::Tensor z_bar;
      if (needs_adjoint) objective_->adjoint(z, begin, z_bar = narrowed(adjoint_room, 0, 0, r));
      if (x_bar != nullptr) pull(first, 0, z_bar, x, begin);
      for (std::int64_t k = 0; is_second && k < count; ++k) {
        const at::Tensor z_dot = narrowed(part(tangent_room, k), 0, 0, r);
        tangent_of(k, x, begin, z_dot);
        if (objective_->is_curved())
          objective_->adjoint_tangent(z, begin, stacked_alone(z_dot), stacked_alone(z_dot));
        else
          z_dot.zero_();
        pull(second, k, z_dot, x, begin);
        if (!gauss_newton) bend(second, k, z_bar, begin);
      }
    }
    first.give();
    second.give();
    if (x_bar_dot != nullptr) layer_.drop_tangents();
  }

 private:
  void tangent_of(std::int64_t k, const at::Tensor& x, std::int64_t begin, const at::Tensor& z_dot) const {
    const bool has_x_dot = layer_.x_dot.defined(), has_w_dot = layer_.w_dot.defined();
    if (has_x_dot) multiply(z_dot, narrowed(part(layer_.x_dot, k), 0, begin, x.size(0)), turned(layer_.w), false);
    if (has_w_dot) multiply(z_dot, x, turned(part(layer_.w_dot, k)), has_x_dot);
    if (!has_x_dot && !has_w_dot) z_dot.zero_();
    if (layer_.bias_dot.defined()) z_dot.add_(part(layer_.bias_dot, k));
  }

  void pull(const LayerSums& sums, std::int64_t k, const at::Tensor& z_bar, const at::Tensor& x,
            std::int64_t begin) const {
    if (sums.x.defined()) multiply(narrowed(part(sums.x, k), 0, begin, x.size(0)), z_bar, layer_.w, false);
    if (sums.w.defined()) multiply(part(sums.w, k), turned(z_bar), x, true);
    if (sums.bias.defined()) part(sums.bias, k).add_(z_bar.sum(0));
  }

  void bend(const LayerSums& sums, std::int64_t k, const at::Tensor& z_bar, std::int64_t begin) const {
    const std::int64_t r = z_bar.size(0);
    if (sums.x.defined() && layer_.w_dot.defined())
      multiply(narrowed(part(sums.x, k), 0, begin, r), z_bar, part(layer_.w_dot, k), true);
    if (sums.w.defined() && layer_.x_dot.defined())
      multiply(part(sums.w, k), turned(z_bar), narrowed(part(layer_.x_dot, k), 0, begin, r), true);
  }

  LinearLayer layer_;
  std::shared_ptr<const RowObjective> objective_;
  at::Tensor state_;
  std::int64_t chunk_ = 1;
};

/// Of rounded operands z̄ = A P − U is more exact than P alone.
bool operands_are_rounded() { return RoundedProducts::now() != Rounding::kNone; }

}  // namespace

std::unique_ptr<Head> plain_head(const at::Tensor& z, std::shared_ptr<const RowObjective> objective, OutputRows rows) {
  return std::make_unique<PlainHead>(z, std::move(objective), rows);
}

std::unique_ptr<Head> linear_head(const Arguments& arguments, std::shared_ptr<const RowObjective> objective,
                                  bool small) {
  LinearLayer layer(arguments);
  const bool plain_bias = !layer.bias.defined() || layer.bias.dim() == 1;
  const bool unscaled =
      arguments.instruction.op->schema().name() != "aten::addmm" ||
      (arguments.values[3].toScalar().toDouble() == 1 && arguments.values[4].toScalar().toDouble() == 1);
  if (!objective->rows_are_leading() || layer.shape.size() < 2 || layer.w.dim() != 2 || !plain_bias || !unscaled ||
      layer.x.is_complex() || layer.x.scalar_type() != layer.w.scalar_type() || arguments.active_beyond({0, 1, 2}))
    return nullptr;
  if (layer.x.is_cpu() && objective->softmax() != nullptr && !operands_are_rounded())
    return softmax_head(std::move(layer), std::move(objective));
  return std::make_unique<LinearHead>(std::move(layer), std::move(objective), small);
}

bool is_linear_layer(const Instruction& instruction) {
  if (instruction.kind != Instruction::Kind::kDispatch || !instruction.op) return false;
  const std::string& name = instruction.op->schema().name();
  return name == "aten::linear" || name == "aten::addmm" || name == "aten::mm" || name == "aten::matmul";
}

}  // namespace hesspect

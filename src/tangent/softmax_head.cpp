// The head where the loss is cross entropy: layer and loss in tiles of rows and classes, which stay in a core's cache.
//
// With P = softmax(z), A the rows' weights and U = u q what the targets take off (SoftmaxRows), z̄ = A P − U. A tangent
// ż = ẋ Wᵀ + x Ẇᵀ + ḃ is then needed for
//
//   z̄̇ = A P∘(ż − r),  r = ⟨P, ż⟩ = ⟨P W, ẋ⟩ + ⟨P Ẇ, x⟩ + P ḃ,
//   x̄̇ = A P Ẇ − U Ẇ + z̄̇ W,  W̄̇ = Pᵀ A ẋ − Uᵀ ẋ + z̄̇ᵀ x,
//
// so that r is known, by the product P Ẇ that x̄̇ asks for anyway, before any ż is made: ż and z̄̇ live as one tile, z̄ not
// at all, and U is one entry a row. P lies tile by tile in memory.
//
// Of the empirical Fisher, whose z̄̇ = z̄ ⟨z̄, ż⟩ / A is of rank one in each row, neither ż nor z̄̇ is made:
//
//   ρ = ⟨z̄, ż⟩ / A = r − ⟨U, ż⟩ / A,  x̄̇ = ρ x̄ = ρ (A P W − U W),  W̄̇ = Pᵀ A ρ x − Uᵀ ρ x.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "head.h"
#include "hesspect/core/errors.h"
#include "hesspect/tangent/kernels.h"
#include "hesspect/tangent/strided.h"

namespace hesspect {
namespace {

constexpr std::int64_t kTileRows = 256;
constexpr std::int64_t kTileBytes = 5 << 18;  // of two tiles and of the classes' part of W, Ẇ and W̄̇
constexpr std::int64_t kFewestColumns = 128;

/// The columns of a tile, alike for all of them.
std::int64_t tile_columns(const LinearLayer& layer) {
  const std::int64_t columns = layer.w.size(0);
  const std::int64_t bytes_of_column =
      (2 * kTileRows + 3 * layer.w.size(1)) * static_cast<std::int64_t>(layer.w.element_size());
  const std::int64_t most = std::max(kFewestColumns, kTileBytes / bytes_of_column) * at::get_num_threads();
  const std::int64_t tiles = (columns + most - 1) / most;
  return ((columns + tiles - 1) / tiles + 15) / 16 * 16;
}

class SoftmaxHead final : public Head {
 public:
  SoftmaxHead(LinearLayer layer, std::shared_ptr<const RowObjective> objective)
      : layer_(std::move(layer)),
        objective_(std::move(objective)),
        terms_(*objective_->softmax()),
        columns_(tile_columns(layer_)) {}

  void tangent(const Tangents& x_dot) override { layer_.take(x_dot); }

  void backward(Sink* x_bar, Sink* x_bar_dot, bool keep, bool gauss_newton) override {
    const bool made = p_.defined();
    const std::int64_t rows = layer_.x.size(0), classes = layer_.w.size(0), most = std::min(kTileRows, rows);
    const bool is_second = x_bar_dot != nullptr && layer_.has_tangents();
    const LayerSums first(layer_, x_bar, 1), second(layer_, is_second ? x_bar_dot : nullptr, layer_.count);
    const bool is_outer = is_second && terms_.outer.defined();
    if (is_outer && !gauss_newton) throw Error(ExitCode::kInternal, "an outer product has no second derivative");
    at::Tensor room;
    const at::Tensor rho = is_outer ? on_targets() : at::Tensor();  // ⟨U, ż⟩, and block by block ρ in its place
    if (!made) {
      sum_ = 0;
      room = empty({most, classes});
      p_ = empty({(keep ? rows : most) * classes});
      p_w_ = empty(layer_.x.sizes());
    }
    for (std::int64_t begin = 0; begin < rows; begin += kTileRows) {
      const Block block{begin, std::min(kTileRows, rows - begin), keep ? begin * classes : 0};
      if (!made) make(block, room);
      if (x_bar != nullptr) pull(block, first);
      if (is_outer)
        pull_outer(block, second, rho);
      else if (is_second)
        pull_tangents(block, second, gauss_newton);
    }
    if (is_outer) finish_outer(second, rho);
    take_targets(first, second, gauss_newton);
    first.give();
    second.give();
    if (x_bar_dot != nullptr) layer_.drop_tangents();
  }

 private:
  struct Block {
    std::int64_t begin, rows;
    std::int64_t offset;  // of its tiles in p_
    at::Tensor of(const at::Tensor& t) const { return t.defined() ? narrowed(t, 0, begin, rows) : t; }
    /// The same of the k-th of stacked rows.
    at::Tensor of(const at::Tensor& t, std::int64_t k) const { return t.defined() ? of(part(t, k)) : t; }
  };
  /// Some classes, with the probabilities of a block's rows.
  struct Tile {
    std::int64_t begin, columns;
    at::Tensor p;  // contiguous
    at::Tensor of(const at::Tensor& t) const { return t.defined() ? narrowed(t, 0, begin, columns) : t; }
    at::Tensor of(const at::Tensor& t, std::int64_t k) const { return t.defined() ? of(part(t, k)) : t; }
  };

  at::Tensor empty(at::IntArrayRef sizes) const { return at::empty(sizes, layer_.x.options()); }

  template <class Work>
  void for_each_tile(const Block& block, Work&& work) const {
    const std::int64_t classes = layer_.w.size(0);
    for (std::int64_t begin = 0; begin < classes; begin += columns_) {
      const std::int64_t columns = std::min(columns_, classes - begin);
      work(Tile{begin, columns, strided(p_, {block.rows, columns}, {columns, 1}, block.offset + block.rows * begin)});
    }
  }

  /// P and P W of a block's rows.
  void make(const Block& block, const at::Tensor& room) {
    at::Tensor z = narrowed(room, 0, 0, block.rows), p_w = block.of(p_w_);
    multiply(z, block.of(layer_.x), turned(layer_.w), false);
    if (layer_.bias.defined()) z.add_(layer_.bias);
    sum_ += objective_->prepare(z, block.begin);
    for_each_tile(block, [&](const Tile& tile) {
      tile.p.copy_(narrowed(z, 1, tile.begin, tile.columns));
      multiply(p_w, tile.p, tile.of(layer_.w), tile.begin > 0);
    });
  }

  // What follows leaves out U.

  void pull(const Block& block, const LayerSums& sums) const {
    const at::Tensor a = block.of(terms_.a), scaled_x = block.of(layer_.x) * a.unsqueeze(1);
    if (sums.x.defined()) block.of(sums.x, 0).copy_(block.of(p_w_)).mul_(a.unsqueeze(1));
    if (!sums.w.defined() && !sums.bias.defined()) return;
    for_each_tile(block, [&](const Tile& tile) {
      if (sums.w.defined()) multiply(tile.of(sums.w, 0), turned(tile.p), scaled_x, true);
      if (sums.bias.defined()) tile.of(sums.bias, 0).addmv_(turned(tile.p), a);
    });
  }

  void pull_tangents(const Block& block, const LayerSums& sums, bool gauss_newton) const {
    const std::int64_t count = layer_.count;
    const at::Tensor x = block.of(layer_.x), a = block.of(terms_.a), a_column = a.unsqueeze(1);
    at::Tensor p_w_dot, scaled_x_dot;  // P Ẇ, A ẋ
    const at::Tensor r = inner_products(block, p_w_dot);
    const bool bends_x = sums.x.defined() && p_w_dot.defined() && !gauss_newton;
    const bool bends_w = sums.w.defined() && layer_.x_dot.defined() && !gauss_newton;
    if (bends_w) scaled_x_dot = narrowed(layer_.x_dot, 1, block.begin, block.rows) * a_column;
    if (sums.x.defined()) {
      at::Tensor x_bar_dot = narrowed(sums.x, 1, block.begin, block.rows);
      if (bends_x)
        at::mul_out(x_bar_dot, p_w_dot, a_column);
      else
        x_bar_dot.zero_();
    }
    const at::Tensor room = empty({block.rows * columns_});
    for_each_tile(block, [&](const Tile& tile) {
      const at::Tensor z_dot = strided(room, tile.p.sizes(), tile.p.strides(), 0);
      for (std::int64_t k = 0; k < count; ++k) {
        tangent_of(block, tile, k, z_dot);
        fused::cross_entropy_adjoint_tangent(
            {.p = tile.p, .z_dot = z_dot, .a = a, .z_bar_dot = z_dot, .columns = tile.columns, .r = part(r, k)});
        if (sums.x.defined()) multiply(block.of(sums.x, k), z_dot, tile.of(layer_.w), true);
        if (sums.w.defined()) multiply(tile.of(sums.w, k), turned(z_dot), x, true);
        if (bends_w) multiply(tile.of(sums.w, k), turned(tile.p), part(scaled_x_dot, k), true);
        if (sums.bias.defined()) tile.of(sums.bias, k).add_(z_dot.sum(0));
      }
    });
  }

  // --- the empirical Fisher ---

  /// ⟨U, ż⟩ [K, R].
  at::Tensor on_targets() const {
    at::Tensor sums = empty({layer_.count, layer_.x.size(0)}).zero_();
    at::Tensor u_m = empty(layer_.x.sizes());  // −U W, then −U Ẇ
    if (layer_.x_dot.defined()) {
      take_rows(u_m.zero_(), layer_.w);
      sums.sub_((layer_.x_dot * u_m).sum(-1));
    }
    for (std::int64_t k = 0; k < layer_.count; ++k) {
      if (layer_.w_dot.defined()) {
        take_rows(u_m.zero_(), layer_.w_dot[k]);
        sums[k].sub_((layer_.x * u_m).sum(-1));
      }
      if (!layer_.bias_dot.defined()) continue;
      const at::Tensor bias_dot = layer_.bias_dot[k];
      sums[k].addcmul_(bias_dot.index_select(0, terms_.target), terms_.b);
      if (terms_.s.defined())
        sums[k].addcmul_(terms_.s, terms_.weights.defined() ? at::dot(bias_dot, terms_.weights) : bias_dot.sum());
    }
    return sums;
  }

  /// Without U. @param rho  of the block's rows becomes ρ
  void pull_outer(const Block& block, const LayerSums& sums, const at::Tensor& rho) const {
    const at::Tensor x = block.of(layer_.x), a = block.of(terms_.a);
    at::Tensor p_w_dot, of_block = narrowed(rho, 1, block.begin, block.rows);
    of_block.copy_(inner_products(block, p_w_dot).mul_(a).sub_(of_block).mul_(block.of(terms_.outer)));
    if (!sums.w.defined() && !sums.bias.defined()) return;
    const at::Tensor scales = of_block * a;  // [K, rows]
    const at::Tensor scaled_x = sums.w.defined() ? x * scales.unsqueeze(-1) : at::Tensor();
    for_each_tile(block, [&](const Tile& tile) {
      for (std::int64_t k = 0; k < layer_.count; ++k) {
        if (sums.w.defined()) multiply(tile.of(sums.w, k), turned(tile.p), part(scaled_x, k), true);
        if (sums.bias.defined()) tile.of(sums.bias, k).addmv_(turned(tile.p), part(scales, k));
      }
    });
  }

  /// x̄̇, and what U takes off W̄̇ and the bias's sum.
  void finish_outer(const LayerSums& sums, const at::Tensor& rho) {
    if (sums.x.defined()) {
      at::Tensor x_bar = p_w_ * terms_.a.unsqueeze(1);
      take_rows(x_bar, layer_.w);
      at::Tensor x_bar_dot = sums.x;
      at::mul_out(x_bar_dot, x_bar, rho.unsqueeze(-1));
    }
    if (sums.w.defined()) take_columns(sums.w, layer_.x * rho.unsqueeze(-1));
    for (std::int64_t k = 0; k < layer_.count && sums.bias.defined(); ++k) {
      sums.bias[k].index_add_(0, terms_.target, terms_.b * rho[k], -1);
      if (terms_.s.defined()) sums.bias[k].sub_(weighted((terms_.s * rho[k]).sum()));
    }
  }

  // --- both ---

  /// r [K, rows]. @param p_w_dot  becomes P Ẇ [K, rows, d], where there is Ẇ
  at::Tensor inner_products(const Block& block, at::Tensor& p_w_dot) const {
    at::Tensor r = at::zeros({layer_.count, block.rows}, layer_.x.options());
    const bool has_w_dot = layer_.w_dot.defined(), has_bias_dot = layer_.bias_dot.defined();
    if (has_w_dot) p_w_dot = at::empty({layer_.count, block.rows, layer_.x.size(1)}, layer_.x.options());
    if (has_w_dot || has_bias_dot)
      for_each_tile(block, [&](const Tile& tile) {
        for (std::int64_t k = 0; k < layer_.count; ++k) {
          if (has_w_dot) multiply(part(p_w_dot, k), tile.p, tile.of(layer_.w_dot, k), tile.begin > 0);
          if (has_bias_dot) part(r, k).addmv_(tile.p, tile.of(layer_.bias_dot, k));
        }
      });
    if (has_w_dot) r.add_((p_w_dot * block.of(layer_.x)).sum(-1));
    if (layer_.x_dot.defined()) r.add_((narrowed(layer_.x_dot, 1, block.begin, block.rows) * block.of(p_w_)).sum(-1));
    return r;
  }

  void tangent_of(const Block& block, const Tile& tile, std::int64_t k, const at::Tensor& z_dot) const {
    const bool has_x_dot = layer_.x_dot.defined(), has_w_dot = layer_.w_dot.defined();
    if (has_x_dot) multiply(z_dot, block.of(layer_.x_dot, k), turned(tile.of(layer_.w)), false);
    if (has_w_dot) multiply(z_dot, block.of(layer_.x), turned(tile.of(layer_.w_dot, k)), has_x_dot);
    if (!has_x_dot && !has_w_dot) z_dot.zero_();
    if (layer_.bias_dot.defined()) z_dot.add_(tile.of(layer_.bias_dot, k));
  }

  // --- U, of all rows at once ---

  void take_targets(const LayerSums& first, const LayerSums& second, bool gauss_newton) {
    if (first.x.defined()) take_rows(first.x[0], layer_.w);
    if (first.w.defined()) take_columns(first.w, layer_.x.unsqueeze(0));
    if (first.bias.defined()) {
      first.bias[0].index_add_(0, terms_.target, terms_.b, -1);
      if (terms_.s.defined()) first.bias[0].sub_(weighted(terms_.s.sum()));
    }
    if (gauss_newton) return;
    for (std::int64_t k = 0; k < layer_.count; ++k)
      if (second.x.defined() && layer_.w_dot.defined()) take_rows(second.x[k], layer_.w_dot[k]);
    if (second.w.defined() && layer_.x_dot.defined()) take_columns(second.w, layer_.x_dot);
  }

  /// rows [R, d] −= U m. @param m  [C, d]
  void take_rows(const at::Tensor& rows, const at::Tensor& m) const {
    rows.addcmul_(m.index_select(0, terms_.target), terms_.b.unsqueeze(1), -1);
    if (terms_.s.defined())
      rows.addcmul_(terms_.s.unsqueeze(1), terms_.weights.defined() ? at::mv(m.t(), terms_.weights) : m.sum(0), -1);
  }

  /// sum [K, C, d] −= Uᵀ x. @param x  [K, R, d]
  void take_columns(const at::Tensor& sum, const at::Tensor& x) {
    for (std::int64_t k = 0; k < x.size(0) && terms_.s.defined(); ++k)
      sum[k].sub_(weighted(at::mv(x[k].t(), terms_.s)).view({-1, x.size(2)}));
    const at::Tensor src = x * terms_.b.neg().unsqueeze(1);
    if (!sum[0].is_contiguous()) {
      sum.index_add_(1, terms_.target, src);
      return;
    }
    if (!order_.sorted.defined()) order_ = fused::order_rows(terms_.target);
    fused::rows_add({.rows = order_, .src = src.contiguous(), .out = sum, .columns = x.size(2)});
  }

  /// t, times the classes' weights where these have any: [1] or [C], times t's shape.
  at::Tensor weighted(const at::Tensor& t) const {
    return terms_.weights.defined() ? at::outer(terms_.weights, t.flatten()).squeeze(-1) : t;
  }

  LinearLayer layer_;
  std::shared_ptr<const RowObjective> objective_;
  const SoftmaxRows& terms_;
  std::int64_t columns_;
  at::Tensor p_, p_w_;       // P, block by block and in these tile by tile; P W [R, d]
  fused::RowOrder order_{};  // of the targets
};

}  // namespace

std::unique_ptr<Head> softmax_head(LinearLayer layer, std::shared_ptr<const RowObjective> objective) {
  return std::make_unique<SoftmaxHead>(std::move(layer), std::move(objective));
}

}  // namespace hesspect

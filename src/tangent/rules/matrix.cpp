// Matrix products: bilinear, two terms each way.
#include <ATen/ATen.h>

#include <algorithm>

#include "../registry.h"
#include "../rounded_products.h"
#include "../stacked.h"

namespace hesspect {
namespace {

bool same_real_type(const at::Tensor& a, const at::Tensor& b) {
  return !a.is_complex() && at::isFloatingType(a.scalar_type()) && a.scalar_type() == b.scalar_type();
}

/// a[k] where it is stacked over `dims` dimensions, else a.
at::Tensor part_of(const at::Tensor& a, std::int64_t dims, std::int64_t k) { return a.dim() > dims ? part(a, k) : a; }

/// out[k] := or += a[k] b, a b[k]: matrices, or batches of them; out is stacked, and one of a and b.
void put_products(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  const std::int64_t dims = out.dim() - 1;
  for (std::int64_t k = 0; k < out.size(0); ++k) multiply(part(out, k), part_of(a, dims, k), part_of(b, dims, k), add);
}
void add_products(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) { put_products(out, a, b, true); }

/// Room for K products [K, batch, m, n]. Where b has several heads inside each of its rows, as projections make them,
/// so has the room, and what joins the heads again takes no copy.
at::Tensor room_for(std::int64_t count, const at::Tensor& a, const at::Tensor& b) {
  std::vector<std::int64_t> sizes = with_count(count, a.sizes());
  sizes.back() = b.size(-1);
  const std::int64_t d = b.dim();
  const bool heads_inside =
      a.is_cpu() && d >= 4 && b.stride(-1) == 1 && b.size(-3) > 1 && b.stride(-3) > 0 && b.stride(-3) < b.stride(-2);
  if (!heads_inside) return at::empty(sizes, a.options());
  std::swap(sizes[static_cast<std::size_t>(d) - 1], sizes[static_cast<std::size_t>(d) - 2]);
  std::vector<std::int64_t> order(sizes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::swap(order[order.size() - 2], order[order.size() - 3]);
  return permuted(at::empty(sizes, a.options()), order);
}

/// The same as new tensors. @param dims  of one product
at::Tensor products(const at::Tensor& a, const at::Tensor& b, std::int64_t dims) {
  const std::int64_t count = a.dim() > dims ? a.size(0) : b.size(0);
  if (count > 1 && dims == 2 && a.dim() == 3 && b.dim() == 2 && a.is_contiguous()) {  // of all tangents at once
    const at::Tensor rows = at::empty({count * a.size(1), b.size(1)}, a.options());
    multiply(rows, reshaped(a, {count * a.size(1), a.size(2)}), b, false);
    return reshaped(rows, {count, a.size(1), b.size(1)});
  }
  const at::Tensor room = room_for(count, part_of(a, dims, 0), part_of(b, dims, 0));
  put_products(room, a, b, false);
  return room;
}

/// Adds products to an operand's sum, in place where that may be written to and has their shape.
void add_to_sum(Sink& sink, std::size_t operand, const at::Tensor& a, const at::Tensor& b, std::int64_t dims) {
  if (!sink.wants(operand)) return;
  const at::Tensor open = sink.open(operand);
  if (open.defined())
    add_products(open, a, b);
  else
    sink.add(operand, products(a, b, dims));
}

/// linear(x, W, b): y = x Wᵀ + b.
class Linear final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor& w = arguments.tensor(1);
    const at::Tensor bias = arguments.optional_tensor(2);
    return same_real_type(arguments.tensor(0), w) && w.dim() == 2 && arguments.tensor(0).dim() >= 1 &&
           (!bias.defined() || bias.dim() == 1);
  }

  explicit Linear(Arguments arguments)
      : shape_(arguments.tensor(0).sizes().vec()),
        x_(arguments.tensor(0).reshape({-1, shape_.back()})),
        w_(arguments.tensor(1)),
        bias_(arguments.optional_tensor(2)) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor y = bias_.defined() ? at::addmm(bias_, x_, w_.t()) : at::mm(x_, w_.t());
    return {y.view(output_shape())};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const std::int64_t k = dots.count(), rows = x_.size(0), in = x_.size(1), out = w_.size(0);
    take(dots);
    const at::Tensor b_dot = dots.at(2), y_dot = at::empty({k, rows, out}, x_.options());
    if (b_dot.defined()) y_dot.copy_(aligned(b_dot, 2));
    if (x_dot_.defined())
      multiply(reshaped(y_dot, {k * rows, out}), reshaped(x_dot_, {k * rows, in}), turned(w_), b_dot.defined());
    if (w_dot_.defined()) put_products(y_dot, x_, turned(w_dot_), b_dot.defined() || x_dot_.defined());
    return {reshaped(y_dot, with_count(k, output_shape()))};
  }

  void take(const Tangents& dots) override {
    x_dot_ = dots.at(0);
    if (x_dot_.defined()) x_dot_ = reshaped(x_dot_, {dots.count(), x_.size(0), x_.size(1)});
    w_dot_ = dots.at(1);
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    const at::Tensor rows = rows_of(y_bar[0]);
    y_bar_ = part(rows, 0);
    pull(rows, sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), w_dot = std::exchange(w_dot_, {});
    if (y_bar_dot[0].defined()) pull(rows_of(y_bar_dot[0]), sink);
    if (!y_bar_.defined()) return;
    if (w_dot.defined()) add_to_x(sink, y_bar_, w_dot);
    if (x_dot.defined()) add_to_sum(sink, 1, turned(y_bar_), x_dot, 2);
  }

 private:
  std::vector<std::int64_t> output_shape() const {
    std::vector<std::int64_t> shape = shape_;
    shape.back() = w_.size(0);
    return shape;
  }
  at::Tensor rows_of(const at::Tensor& y) const { return reshaped(y, {y.size(0), x_.size(0), w_.size(0)}); }

  /// x's sum += a b. @param a, b  one is stacked
  void add_to_x(Sink& sink, const at::Tensor& a, const at::Tensor& b) const {
    if (!sink.wants(0)) return;
    const at::Tensor open = sink.open(0);
    if (open.defined() && open.is_contiguous())
      add_products(reshaped(open, {sink.count(), x_.size(0), x_.size(1)}), a, b);
    else
      sink.add(0, reshaped(products(a, b, 2), with_count(sink.count(), shape_)));
  }

  /// Jᵀ y for stacked y [K, rows, out].
  void pull(const at::Tensor& y, Sink& sink) const {
    add_to_x(sink, y, w_);
    add_to_sum(sink, 1, turned(y), x_, 2);
    if (!bias_.defined() || !sink.wants(2)) return;
    // As a product with ones: into the sum, with no tensor between. Not where products round, for this is a sum.
    const at::Tensor open = sink.open(2);
    if (!open.defined() || RoundedProducts::now() != Rounding::kNone) return sink.add(2, y.sum(1));
    if (!ones_.defined()) ones_ = at::ones({1, x_.size(0)}, x_.options());
    for (std::int64_t k = 0; k < y.size(0); ++k) multiply(stacked_alone(part(open, k)), ones_, part(y, k), true);
  }

  std::vector<std::int64_t> shape_;  // of x
  at::Tensor x_, w_, bias_;          // [rows, in], [out, in], [out]
  mutable at::Tensor ones_;          // [1, rows]
  at::Tensor y_bar_, x_dot_, w_dot_;
};

/// mm(a, b), bmm(a, b), and matmul of at least two dimensions each: y = a b.
class Product final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor &a = arguments.tensor(0), &b = arguments.tensor(1);
    return same_real_type(a, b) && a.dim() >= 2 && b.dim() >= 2 && !arguments.active_beyond({0, 1});
  }

  explicit Product(Arguments arguments)
      : a_(arguments.tensor(0)), b_(arguments.tensor(1)), a_shape_(a_.sizes().vec()), b_shape_(b_.sizes().vec()) {
    if (b_.dim() == 2) {  // x [.., r, d] times a matrix is one product of all rows
      y_shape_ = a_shape_;
      y_shape_.back() = b_.size(1);
      a_ = reshaped(a_, {c10::multiply_integers(a_.sizes().slice(0, a_shape_.size() - 1)), a_.size(-1)});
      return;
    }
    batch_ = batch_shape();
    y_shape_ = batch_;
    y_shape_.insert(y_shape_.end(), {a_.size(-2), b_.size(-1)});
    a_ = part(batches(stacked_alone(a_), a_shape_), 0);
    b_ = part(batches(stacked_alone(b_), b_shape_), 0);
  }

  std::vector<at::Tensor> value() override {
    const at::Tensor y = room_for(1, a_, b_);
    multiply(part(y, 0), a_, b_, false);
    return {reshaped(part(y, 0), y_shape_)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    take(dots);
    const std::int64_t k = dots.count();
    const at::Tensor y_dot = a_dot_.defined() ? products(a_dot_, b_, a_.dim()) : products(a_, b_dot_, a_.dim());
    if (a_dot_.defined() && b_dot_.defined()) add_products(y_dot, a_, b_dot_);
    return {reshaped(y_dot, with_count(k, y_shape_))};
  }

  void take(const Tangents& dots) override {
    a_dot_ = inner(dots.at(0), a_shape_);
    b_dot_ = inner(dots.at(1), b_shape_);
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    const at::Tensor y = inner_output(y_bar[0]);
    y_bar_ = part(y, 0);
    pull(y, sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor a_dot = std::exchange(a_dot_, {}), b_dot = std::exchange(b_dot_, {});
    if (y_bar_dot[0].defined()) pull(inner_output(y_bar_dot[0]), sink);
    if (!y_bar_.defined()) return;
    if (b_dot.defined()) give(sink, 0, a_shape_, y_bar_, turned(b_dot));
    if (a_dot.defined()) give(sink, 1, b_shape_, turned(a_dot), y_bar_);
  }

 private:
  bool is_batch() const { return !batch_.empty(); }

  std::vector<std::int64_t> batch_shape() const {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(std::max(a_.dim(), b_.dim()) - 2), 1);
    for (const at::Tensor& t : {a_, b_})
      for (std::int64_t d = 0; d < t.dim() - 2; ++d) {
        std::int64_t& size = shape[shape.size() - static_cast<std::size_t>(t.dim() - 2 - d)];
        if (size == 1) size = t.size(d);
      }
    return shape;
  }

  /// [K, .., m, n] -> [K, batch, m, n], broadcast without a copy. @param shape  of one
  at::Tensor batches(const at::Tensor& stacked, const std::vector<std::int64_t>& shape) const {
    const at::Tensor whole = aligned(readable(stacked), static_cast<std::int64_t>(batch_.size()) + 2);
    std::vector<std::int64_t> wide = with_count(stacked.size(0), batch_);
    wide.insert(wide.end(), shape.end() - 2, shape.end());
    return whole.sizes() == wide ? whole : whole.expand(wide);
  }

  at::Tensor inner(const at::Tensor& stacked, const std::vector<std::int64_t>& shape) const {
    if (!stacked.defined()) return {};
    return is_batch() ? batches(stacked, shape) : rows_of(stacked);
  }
  at::Tensor inner_output(const at::Tensor& y) const { return is_batch() ? readable(y) : rows_of(y); }
  /// [K, .., n] -> [K, rows, n].
  static at::Tensor rows_of(const at::Tensor& stacked) {
    const at::IntArrayRef sizes = stacked.sizes();
    return reshaped(stacked, {sizes[0], c10::multiply_integers(sizes.slice(1, sizes.size() - 2)), sizes.back()});
  }

  /// Adds products to the sum of an operand of that shape; what was broadcast is summed.
  void give(Sink& sink, std::size_t operand, const std::vector<std::int64_t>& shape, const at::Tensor& a,
            const at::Tensor& b) const {
    if (!sink.wants(operand)) return;
    if (!is_batch() && shape.size() == 2) return add_to_sum(sink, operand, a, b, 2);
    const at::Tensor open = sink.open(operand);
    const bool is_broadcast =
        is_batch() && (shape.size() != batch_.size() + 2 || !std::equal(batch_.begin(), batch_.end(), shape.begin()));
    if (open.defined() && is_batch() && !is_broadcast) return add_products(open, a, b);
    if (open.defined() && !is_batch() && open.is_contiguous()) return add_products(rows_of(open), a, b);
    const at::Tensor wide = products(a, b, a_.dim());
    sink.add(operand, is_broadcast ? summed_to(wide, shape) : reshaped(wide, with_count(wide.size(0), shape)));
  }

  void pull(const at::Tensor& y, Sink& sink) const {
    give(sink, 0, a_shape_, y, turned(b_));
    give(sink, 1, b_shape_, turned(a_), y);
  }

  at::Tensor a_, b_;  // [m, d] and [d, n], or [batch, m, d] and [batch, d, n]
  std::vector<std::int64_t> a_shape_, b_shape_, y_shape_, batch_;
  at::Tensor y_bar_, a_dot_, b_dot_;
};

/// addmm(c, a, b), baddbmm(c, a, b): y = beta c + alpha a b.
class AddProduct final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor &a = arguments.tensor(1), &b = arguments.tensor(2);
    return same_real_type(a, b) && same_real_type(arguments.tensor(0), a) && !arguments.active_beyond({0, 1, 2});
  }

  explicit AddProduct(Arguments arguments)
      : c_(arguments.tensor(0)),
        a_(arguments.tensor(1)),
        b_(arguments.tensor(2)),
        c_shape_(c_.sizes().vec()),
        beta_(arguments.values[3].toScalar().toDouble()),
        alpha_(arguments.values[4].toScalar().toDouble()) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor c = std::exchange(c_, {});
    return {a_.dim() == 2 ? at::addmm(c, a_, b_, beta_, alpha_) : at::baddbmm(c, a_, b_, beta_, alpha_)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    take(dots);
    std::vector<std::int64_t> shape = a_.sizes().vec();
    shape.back() = b_.size(-1);
    at::Tensor y_dot = a_dot_.defined()   ? products(a_dot_, b_, a_.dim())
                       : b_dot_.defined() ? products(a_, b_dot_, a_.dim())
                                          : stacked_zeros(dots.count(), shape, a_);
    if (a_dot_.defined() && b_dot_.defined()) add_products(y_dot, a_, b_dot_);
    if (alpha_ != 1) y_dot.mul_(alpha_);
    if (const at::Tensor c_dot = dots.at(0); c_dot.defined()) y_dot.add_(aligned(c_dot, a_.dim()), beta_);
    return {y_dot};
  }

  void take(const Tangents& dots) override {
    a_dot_ = dots.at(1);
    b_dot_ = dots.at(2);
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = scaled(part(y_bar[0], 0), alpha_);
    pull(y_bar[0], sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor a_dot = std::exchange(a_dot_, {}), b_dot = std::exchange(b_dot_, {});
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
    if (!y_bar_.defined()) return;
    if (b_dot.defined()) add_to_sum(sink, 1, y_bar_, turned(b_dot), a_.dim());
    if (a_dot.defined()) add_to_sum(sink, 2, turned(a_dot), y_bar_, a_.dim());
  }

 private:
  static at::Tensor scaled(const at::Tensor& t, double factor) { return factor == 1 ? t : t * factor; }

  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(0)) {
      const at::Tensor c_bar = scaled(summed_to(y, c_shape_), beta_);
      sink.add(0, c_bar, /*own=*/!c_bar.is_alias_of(y));
    }
    const at::Tensor product_bar = scaled(y, alpha_);
    add_to_sum(sink, 1, product_bar, turned(b_), a_.dim());
    add_to_sum(sink, 2, turned(a_), product_bar, a_.dim());
  }

  at::Tensor c_, a_, b_;
  std::vector<std::int64_t> c_shape_;
  double beta_, alpha_;
  at::Tensor y_bar_, a_dot_, b_dot_;  // y_bar times alpha
};

}  // namespace

const RuleTable& matrix_rules() {
  static const RuleTable rules = {
      {{"linear"}, make_rule<Linear>, Redo::kArguments},
      {{"mm", "bmm", "matmul"}, make_rule<Product>, Redo::kArguments},
      {{"addmm", "baddbmm"}, make_rule<AddProduct>, Redo::kArguments},
  };
  return rules;
}

}  // namespace hesspect

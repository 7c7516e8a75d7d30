// Matrix products: bilinear, two terms each way.
#include <ATen/ATen.h>

#include <algorithm>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {
namespace {

bool same_real_type(const at::Tensor& a, const at::Tensor& b) {
  return !a.is_complex() && at::isFloatingType(a.scalar_type()) && a.scalar_type() == b.scalar_type();
}

/// a[k] where it is stacked over `dims` dimensions, else a.
at::Tensor part_of(const at::Tensor& a, std::int64_t dims, std::int64_t k) { return a.dim() > dims ? a[k] : a; }

at::Tensor product(const at::Tensor& a, const at::Tensor& b) { return a.dim() == 2 ? at::mm(a, b) : at::bmm(a, b); }

/// out[k] += a[k] b, a b[k]: matrices, or batches of them; out is stacked, and one of a and b.
void add_products(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const std::int64_t dims = out.dim() - 1;
  for (std::int64_t k = 0; k < out.size(0); ++k) {
    at::Tensor part = out[k];
    if (dims == 2)
      part.addmm_(part_of(a, dims, k), part_of(b, dims, k));
    else
      part.baddbmm_(part_of(a, dims, k), part_of(b, dims, k));
  }
}

/// The same as new tensors. @param dims  of one product
at::Tensor products(const at::Tensor& a, const at::Tensor& b, std::int64_t dims) {
  const std::int64_t count = a.dim() > dims ? a.size(0) : b.size(0);
  std::vector<at::Tensor> each;
  for (std::int64_t k = 0; k < count; ++k) each.push_back(product(part_of(a, dims, k), part_of(b, dims, k)));
  return restacked(each);
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

std::vector<std::int64_t> with_count(std::int64_t count, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> sizes{count};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  return sizes;
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
    x_dot_ = dots.at(0);
    if (x_dot_.defined()) x_dot_ = x_dot_.reshape({k, rows, in});
    w_dot_ = dots.at(1);
    at::Tensor b_dot = dots.at(2), y_dot;
    if (x_dot_.defined() && b_dot.defined() && k == 1) {
      y_dot = at::addmm(b_dot[0], x_dot_[0], w_.t()).unsqueeze(0);
      b_dot = at::Tensor();
    } else if (x_dot_.defined()) {
      y_dot = at::mm(x_dot_.reshape({k * rows, in}), w_.t()).view({k, rows, out});
    } else {
      y_dot = at::zeros({k, rows, out}, x_.options());
    }
    if (b_dot.defined()) y_dot.add_(b_dot.unsqueeze(1));
    if (w_dot_.defined()) add_products(y_dot, x_, w_dot_.transpose(1, 2));
    return {y_dot.view(with_count(k, output_shape()))};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = rows_of(y_bar[0])[0];
    pull(y_bar_.unsqueeze(0), sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), w_dot = std::exchange(w_dot_, {});
    if (y_bar_dot[0].defined()) pull(rows_of(y_bar_dot[0]), sink);
    if (!y_bar_.defined()) return;
    if (w_dot.defined()) add_to_x(sink, y_bar_, w_dot);
    if (x_dot.defined()) add_to_sum(sink, 1, y_bar_.t(), x_dot, 2);
  }

 private:
  std::vector<std::int64_t> output_shape() const {
    std::vector<std::int64_t> shape = shape_;
    shape.back() = w_.size(0);
    return shape;
  }
  at::Tensor rows_of(const at::Tensor& y) const { return y.reshape({y.size(0), x_.size(0), w_.size(0)}); }

  /// x's sum += a b. @param a, b  one is stacked
  void add_to_x(Sink& sink, const at::Tensor& a, const at::Tensor& b) const {
    if (!sink.wants(0)) return;
    const at::Tensor open = sink.open(0);
    if (open.defined() && open.is_contiguous())
      add_products(open.view({sink.count(), x_.size(0), x_.size(1)}), a, b);
    else
      sink.add(0, products(a, b, 2).reshape(with_count(sink.count(), shape_)));
  }

  /// Jᵀ y for stacked y [K, rows, out].
  void pull(const at::Tensor& y, Sink& sink) const {
    add_to_x(sink, y, w_);
    add_to_sum(sink, 1, y.transpose(1, 2), x_, 2);
    if (bias_.defined() && sink.wants(2)) sink.add(2, y.sum(1));
  }

  std::vector<std::int64_t> shape_;  // of x
  at::Tensor x_, w_, bias_;          // [rows, in], [out, in], [out]
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
      a_ = a_.reshape({-1, a_.size(-1)});
      return;
    }
    batch_ = batch_shape();
    y_shape_ = batch_;
    y_shape_.insert(y_shape_.end(), {a_.size(-2), b_.size(-1)});
    a_ = batches(a_.unsqueeze(0), a_shape_)[0];
    b_ = batches(b_.unsqueeze(0), b_shape_)[0];
  }

  std::vector<at::Tensor> value() override { return {product(a_, b_).view(y_shape_)}; }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    a_dot_ = inner(dots.at(0), a_shape_);
    b_dot_ = inner(dots.at(1), b_shape_);
    const std::int64_t k = dots.count();
    at::Tensor y_dot;
    if (a_dot_.defined() && a_.dim() == 2)
      y_dot = at::mm(a_dot_.reshape({-1, a_.size(1)}), b_).view({k, a_.size(0), b_.size(1)});
    else
      y_dot = a_dot_.defined() ? products(a_dot_, b_, a_.dim()) : products(a_, b_dot_, a_.dim());
    if (a_dot_.defined() && b_dot_.defined()) add_products(y_dot, a_, b_dot_);
    return {y_dot.view(with_count(k, y_shape_))};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = inner_output(y_bar[0])[0];
    pull(y_bar_.unsqueeze(0), sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor a_dot = std::exchange(a_dot_, {}), b_dot = std::exchange(b_dot_, {});
    if (y_bar_dot[0].defined()) pull(inner_output(y_bar_dot[0]), sink);
    if (!y_bar_.defined()) return;
    if (b_dot.defined()) give(sink, 0, a_shape_, y_bar_, b_dot.transpose(-1, -2));
    if (a_dot.defined()) give(sink, 1, b_shape_, a_dot.transpose(-1, -2), y_bar_);
  }

 private:
  std::vector<std::int64_t> batch_shape() const {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(std::max(a_.dim(), b_.dim()) - 2), 1);
    for (const at::Tensor& t : {a_, b_})
      for (std::int64_t d = 0; d < t.dim() - 2; ++d) {
        std::int64_t& size = shape[shape.size() - static_cast<std::size_t>(t.dim() - 2 - d)];
        if (size == 1) size = t.size(d);
      }
    return shape;
  }

  /// [K, .., m, n] -> [K, batch, m, n], broadcast. @param shape  of one
  at::Tensor batches(const at::Tensor& stacked, const std::vector<std::int64_t>& shape) const {
    std::vector<std::int64_t> wide = with_count(stacked.size(0), batch_);
    wide.insert(wide.end(), shape.end() - 2, shape.end());
    return aligned(stacked, static_cast<std::int64_t>(batch_.size()) + 2)
        .expand(wide)
        .reshape({stacked.size(0), -1, shape[shape.size() - 2], shape.back()});
  }

  at::Tensor inner(const at::Tensor& stacked, const std::vector<std::int64_t>& shape) const {
    if (!stacked.defined()) return {};
    return a_.dim() == 3 ? batches(stacked, shape) : stacked.reshape({stacked.size(0), -1, shape.back()});
  }
  at::Tensor inner_output(const at::Tensor& y) const {
    return a_.dim() == 3 ? y.reshape({y.size(0), a_.size(0), a_.size(1), b_.size(2)})
                         : y.reshape({y.size(0), a_.size(0), b_.size(1)});
  }

  /// Adds products to the sum of an operand of that shape; what was broadcast is summed.
  void give(Sink& sink, std::size_t operand, const std::vector<std::int64_t>& shape, const at::Tensor& a,
            const at::Tensor& b) const {
    if (!sink.wants(operand)) return;
    if (a_.dim() == 2 && shape.size() == 2) return add_to_sum(sink, operand, a, b, 2);
    const at::Tensor open = sink.open(operand);
    const bool is_broadcast =
        a_.dim() == 3 && !std::equal(batch_.begin(), batch_.end(), shape.begin(), shape.end() - 2);
    if (open.defined() && open.is_contiguous() && !is_broadcast) {
      const std::vector<std::int64_t> rows = {open.size(0), -1, shape.back()};
      const std::vector<std::int64_t> matrices = {open.size(0), -1, shape[shape.size() - 2], shape.back()};
      return add_products(open.view(a_.dim() == 2 ? rows : matrices), a, b);
    }
    const at::Tensor wide = products(a, b, a_.dim());
    if (a_.dim() == 2) return sink.add(operand, wide.reshape(with_count(wide.size(0), shape)));
    std::vector<std::int64_t> sizes = with_count(wide.size(0), batch_);
    sizes.insert(sizes.end(), shape.end() - 2, shape.end());
    sink.add(operand, summed_to(wide.view(sizes), shape));
  }

  void pull(const at::Tensor& y, Sink& sink) const {
    give(sink, 0, a_shape_, y, b_.transpose(-1, -2));
    give(sink, 1, b_shape_, a_.transpose(-1, -2), y);
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
    a_dot_ = dots.at(1);
    b_dot_ = dots.at(2);
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

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = scaled(y_bar[0][0], alpha_);
    pull(y_bar[0], sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor a_dot = std::exchange(a_dot_, {}), b_dot = std::exchange(b_dot_, {});
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
    if (!y_bar_.defined()) return;
    if (b_dot.defined()) add_to_sum(sink, 1, y_bar_, b_dot.transpose(-1, -2), a_.dim());
    if (a_dot.defined()) add_to_sum(sink, 2, a_dot.transpose(-1, -2), y_bar_, a_.dim());
  }

 private:
  static at::Tensor scaled(const at::Tensor& t, double factor) { return factor == 1 ? t : t * factor; }

  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(0)) {
      const at::Tensor c_bar = scaled(summed_to(y, c_shape_), beta_);
      sink.add(0, c_bar, /*own=*/!c_bar.is_alias_of(y));
    }
    const at::Tensor product_bar = scaled(y, alpha_);
    add_to_sum(sink, 1, product_bar, b_.transpose(-1, -2), a_.dim());
    add_to_sum(sink, 2, a_.transpose(-1, -2), product_bar, a_.dim());
  }

  at::Tensor c_, a_, b_;
  std::vector<std::int64_t> c_shape_;
  double beta_, alpha_;
  at::Tensor y_bar_, a_dot_, b_dot_;  // y_bar times alpha
};

}  // namespace

const RuleTable& matrix_rules() {
  static const RuleTable rules = {
      {{"linear"}, make_rule<Linear>},
      {{"mm", "bmm", "matmul"}, make_rule<Product>},
      {{"addmm", "baddbmm"}, make_rule<AddProduct>},
  };
  return rules;
}

}  // namespace hesspect

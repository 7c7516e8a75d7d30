#include "head.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "stacked.h"

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

/// Where the parts of a linear layer stand among an op's arguments.
struct LinearPlaces {
  std::size_t x = 0, w = 1;
  int bias = -1;
  bool transposed = false;  // w is [in, out]
};

LinearPlaces places_of(const Instruction& instruction) {
  const std::string& name = instruction.op->schema().name();
  if (name == "aten::linear") return {0, 1, 2, false};
  if (name == "aten::addmm") return {1, 2, 0, true};
  return {0, 1, -1, true};  // mm, matmul
}

class LinearHead final : public Head {
 public:
  LinearHead(Arguments arguments, std::shared_ptr<const RowObjective> objective, bool small)
      : objective_(std::move(objective)), places_(places_of(arguments.instruction)) {
    const at::Tensor& x = arguments.tensor(places_.x);
    x_ = x.reshape({-1, x.size(-1)});
    shape_ = x.sizes().vec();
    const at::Tensor& w = arguments.tensor(places_.w);
    w_ = places_.transposed ? w.t() : w;
    if (places_.bias >= 0) bias_ = arguments.optional_tensor(static_cast<std::size_t>(places_.bias));
    const std::int64_t row_bytes = objective_->columns() * static_cast<std::int64_t>(x.element_size());
    chunk_ = std::max(small ? kRowsOfSmall : std::clamp(2 * x_.size(1), kFewestRows, kMostOfThem),
                      kChunkBytes / std::max<std::int64_t>(1, row_bytes));
  }

  void tangent(const Tangents& x_dot) override {
    count_ = x_dot.count();
    if (const at::Tensor t = x_dot.at(places_.x); t.defined()) x_dot_ = t.reshape({count_, -1, x_.size(1)});
    if (const at::Tensor t = x_dot.at(places_.w); t.defined()) w_dot_ = places_.transposed ? t.transpose(1, 2) : t;
    if (places_.bias >= 0) bias_dot_ = x_dot.at(static_cast<std::size_t>(places_.bias));
  }

  void backward(Sink* x_bar, Sink* x_bar_dot, bool keep, bool gauss_newton) override {
    const std::int64_t rows = objective_->rows(), columns = objective_->columns();
    const bool made = state_.defined();
    if (!made && keep) state_ = at::empty({rows, columns}, x_.options());
    if (!made) sum_ = 0;
    const bool has_tangents = x_dot_.defined() || w_dot_.defined() || bias_dot_.defined();
    const bool is_second = x_bar_dot != nullptr && has_tangents;
    const bool needs_adjoint = x_bar != nullptr || (is_second && !gauss_newton);
    const Sums first(*this, x_bar, 1), second(*this, is_second ? x_bar_dot : nullptr, count_);
    const std::int64_t chunk = std::min(chunk_, rows);
    const at::Tensor room = state_.defined() ? at::Tensor() : at::empty({chunk, columns}, x_.options());
    const at::Tensor adjoint_room = needs_adjoint ? at::empty({chunk, columns}, x_.options()) : at::Tensor();
    const at::Tensor tangent_room = is_second ? at::empty({count_, chunk, columns}, x_.options()) : at::Tensor();
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const std::int64_t r = std::min(chunk, rows - begin);
      const at::Tensor x = x_.narrow(0, begin, r);
      at::Tensor z = state_.defined() ? state_.narrow(0, begin, r) : room.narrow(0, 0, r);
      if (!made) {
        at::mm_out(z, x, w_.t());
        if (bias_.defined()) z.add_(bias_);
        sum_ += objective_->prepare(z, begin);
      }
      at::Tensor z_bar;
      if (needs_adjoint) objective_->adjoint(z, begin, z_bar = adjoint_room.narrow(0, 0, r));
      if (x_bar != nullptr) pull(first, 0, z_bar, x, begin);
      for (std::int64_t k = 0; is_second && k < count_; ++k) {
        at::Tensor z_dot = tangent_room[k].narrow(0, 0, r);
        tangent_of(k, x, begin, z_dot);
        if (objective_->is_curved())
          objective_->adjoint_tangent(z, begin, z_dot.unsqueeze(0), z_dot.unsqueeze(0));
        else
          z_dot.zero_();
        pull(second, k, z_dot, x, begin);
        if (!gauss_newton) bend(second, k, z_bar, begin);
      }
    }
    first.give();
    second.give();
    if (x_bar_dot != nullptr) x_dot_ = w_dot_ = bias_dot_ = at::Tensor();
  }

 private:
  /// Where a sweep's sums go: x's are new rows, w's and the bias's are added to what is there.
  struct Sums {
    Sums(const LinearHead& the_head, Sink* the_sink, std::int64_t count) : head(the_head), sink(the_sink) {
      if (sink == nullptr) return;
      const LinearPlaces& places = head.places_;
      if (sink->wants(places.x)) x = at::empty({count, head.x_.size(0), head.x_.size(1)}, head.x_.options());
      if (sink->wants(places.w)) {
        w = sink->open_or_zeros(places.w, places.transposed ? head.w_.t() : head.w_);
        if (places.transposed) w = w.transpose(1, 2);
      }
      if (head.bias_.defined() && sink->wants(static_cast<std::size_t>(places.bias)))
        bias = sink->open_or_zeros(static_cast<std::size_t>(places.bias), head.bias_);
    }
    void give() const {
      if (!x.defined()) return;
      std::vector<std::int64_t> sizes = head.shape_;
      sizes.insert(sizes.begin(), x.size(0));
      sink->add(head.places_.x, x.reshape(sizes));
    }
    const LinearHead& head;
    Sink* sink;
    at::Tensor x, w, bias;  // [K, R, d], [K, C, d], [K, C]
  };

  void tangent_of(std::int64_t k, const at::Tensor& x, std::int64_t begin, at::Tensor& z_dot) const {
    if (x_dot_.defined())
      at::mm_out(z_dot, x_dot_[k].narrow(0, begin, x.size(0)), w_.t());
    else
      z_dot.zero_();
    if (w_dot_.defined()) z_dot.addmm_(x, w_dot_[k].t());
    if (bias_dot_.defined()) z_dot.add_(bias_dot_[k]);
  }

  void pull(const Sums& sums, std::int64_t k, const at::Tensor& z_bar, const at::Tensor& x, std::int64_t begin) const {
    if (sums.x.defined()) {
      at::Tensor rows = sums.x[k].narrow(0, begin, x.size(0));
      at::mm_out(rows, z_bar, w_);
    }
    if (sums.w.defined()) sums.w[k].addmm_(z_bar.t(), x);
    if (sums.bias.defined()) sums.bias[k].add_(z_bar.sum(0));
  }

  void bend(const Sums& sums, std::int64_t k, const at::Tensor& z_bar, std::int64_t begin) const {
    if (sums.x.defined() && w_dot_.defined()) sums.x[k].narrow(0, begin, z_bar.size(0)).addmm_(z_bar, w_dot_[k]);
    if (sums.w.defined() && x_dot_.defined()) sums.w[k].addmm_(z_bar.t(), x_dot_[k].narrow(0, begin, z_bar.size(0)));
  }

  std::shared_ptr<const RowObjective> objective_;
  LinearPlaces places_;
  at::Tensor x_, w_, bias_;  // [R, d], [C, d], [C]
  at::Tensor state_, x_dot_, w_dot_, bias_dot_;
  std::vector<std::int64_t> shape_;  // of x
  std::int64_t chunk_ = 1, count_ = 1;
};

}  // namespace

std::unique_ptr<Head> plain_head(const at::Tensor& z, std::shared_ptr<const RowObjective> objective, OutputRows rows) {
  return std::make_unique<PlainHead>(z, std::move(objective), rows);
}

std::unique_ptr<Head> linear_head(Arguments arguments, std::shared_ptr<const RowObjective> objective, bool small) {
  const LinearPlaces places = places_of(arguments.instruction);
  const at::Tensor& x = arguments.tensor(places.x);
  const at::Tensor& w = arguments.tensor(places.w);
  const bool plain_bias = places.bias < 0 ||
                          !arguments.optional_tensor(static_cast<std::size_t>(places.bias)).defined() ||
                          arguments.optional_tensor(static_cast<std::size_t>(places.bias)).dim() == 1;
  const bool unscaled =
      arguments.instruction.op->schema().name() != "aten::addmm" ||
      (arguments.values[3].toScalar().toDouble() == 1 && arguments.values[4].toScalar().toDouble() == 1);
  if (!objective->rows_are_leading() || x.dim() < 2 || w.dim() != 2 || !plain_bias || !unscaled || x.is_complex() ||
      x.scalar_type() != w.scalar_type() || arguments.active_beyond({0, 1, 2}))
    return nullptr;
  return std::make_unique<LinearHead>(std::move(arguments), std::move(objective), small);
}

bool is_linear_layer(const Instruction& instruction) {
  if (instruction.kind != Instruction::Kind::kDispatch || !instruction.op) return false;
  const std::string& name = instruction.op->schema().name();
  return name == "aten::linear" || name == "aten::addmm" || name == "aten::mm" || name == "aten::matmul";
}

}  // namespace hesspect

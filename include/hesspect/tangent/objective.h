// What the sweeps end in: a sum of terms over the rows of one output, with its derivatives in closed form.
//
//   const at::Tensor z = objective.as_rows(value.unsqueeze(0))[0].narrow(0, begin, r);          // [r, C]
//   const at::Tensor z_dot = objective.as_rows(tangents).narrow(1, begin, r);                   // [K, r, C]
//   sum += objective.prepare(z, begin);                  // z is the state from here on
//   objective.adjoint(z, begin, z_bar);
//   objective.adjoint_tangent(z, begin, z_dot, z_dot);   // tangents become those of the adjoint
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace hesspect {

/// Numbers of the terms −Σ u q log softmax(z), by rows: the state is p, the adjoint z_bar = a p − u q, and
/// H_z = a (diag p − p pᵀ). u q is b at the target and s times the classes' weights at all. Of an empirical Fisher
/// z_bar z_barᵀ times `outer` stands for H_z.
struct SoftmaxRows {
  at::Tensor target;   // [R] int64; 0 where there is none, and b is 0
  at::Tensor a, b, s;  // [R]; s may be undefined: 0
  at::Tensor weights;  // [C]; undefined: 1
  at::Tensor outer;    // [R]; undefined: H_z is the second derivative
};

/// An output of any shape is seen as rows [R, C], its leading dimensions against all others, whose terms stand alone:
/// it can be made and used in chunks of rows, and no second array of the output's size need live. Tensors have the
/// output's dtype and device; autograd need not be on.
class RowObjective {
 public:
  virtual ~RowObjective() = default;
  RowObjective(const RowObjective&) = delete;
  RowObjective& operator=(const RowObjective&) = delete;

  /// Of the output.
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  /// How many leading dimensions of the output make up the rows: the op that makes the output may work in chunks of
  /// these, and `columns` is the product of the others.
  std::int64_t row_dimensions() const { return row_dimensions_; }
  /// True where a row is the output's last dimension and no more: classes last, as a linear layer makes them.
  bool rows_are_leading() const { return row_dimensions_ + 1 == static_cast<std::int64_t>(shape_.size()); }
  /// The output [K, shape] as rows [K, R, C]: a view, but of layouts that have none.
  at::Tensor as_rows(const at::Tensor& stacked) const { return stacked.reshape({stacked.size(0), rows_, columns_}); }
  /// Rows [K, R, C] in the output's shape [K, shape].
  at::Tensor from_rows(const at::Tensor& rows) const {
    std::vector<std::int64_t> shape = shape_;
    shape.insert(shape.begin(), rows.size(0));
    return rows.reshape(shape);
  }

  /// Replaces z [r, C], rows [begin, begin + r) of the output, by what the derivatives need (for cross entropy the
  /// probabilities).
  /// @return the sum of the terms of these rows, each row's in z's dtype, added up in double
  virtual double prepare(at::Tensor z, std::int64_t begin) const = 0;
  /// out [r, C] := the sum's derivative with respect to z. It may not share memory with the state.
  virtual void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const = 0;
  /// out [K, r, C] := H_z z_dot, for each of K tangents; out may be z_dot itself. H_z is the second derivative, or what
  /// stands for it in a Gauss-Newton product.
  virtual void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                               at::Tensor out) const = 0;
  /// False where the second derivative is zero wherever it exists: Gauss-Newton products are then zero.
  virtual bool is_curved() const = 0;
  /// nullptr where the terms are others. Its rows are [R, C], contiguous.
  virtual const SoftmaxRows* softmax() const { return nullptr; }

 protected:
  /// @param shape           of the output
  /// @param row_dimensions  at most shape.size()
  RowObjective(std::vector<std::int64_t> shape, std::int64_t row_dimensions)
      : shape_(std::move(shape)), row_dimensions_(row_dimensions) {
    for (std::size_t d = 0; d < shape_.size(); ++d)
      (static_cast<std::int64_t>(d) < row_dimensions_ ? rows_ : columns_) *= shape_[d];
  }

 private:
  std::vector<std::int64_t> shape_;
  std::int64_t row_dimensions_ = 0, rows_ = 1, columns_ = 1;
};

}  // namespace hesspect

// Operators with known spectra, for the tests of krylov and spectrum. All work on sharded vectors.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "hesspect/krylov/linear_operator.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect::testing {

class OperatorBase : public LinearOperator {
 public:
  OperatorBase(Communicator& comm, std::int64_t n, at::ScalarType dtype)
      : comm_(comm), shard_(Shard::of(n, comm.size(), comm.rank())), options_(at::TensorOptions().dtype(dtype)) {}
  Communicator& comm() const override { return comm_; }
  const Shard& shard() const override { return shard_; }
  at::TensorOptions options() const override { return options_; }
  std::int64_t products = 0;

 protected:
  /// This rank's shard of a vector given entry by entry, padding zero.
  at::Tensor sharded(const std::function<double(std::int64_t)>& entry) const {
    at::Tensor local = at::zeros({shard_.chunk}, at::kDouble);
    double* out = local.mutable_data_ptr<double>();
    for (std::int64_t i = shard_.begin(); i < shard_.end(); ++i) out[i - shard_.begin()] = entry(i);
    return local.to(options_.dtype());
  }

  Communicator& comm_;
  Shard shard_;
  at::TensorOptions options_;
};

/// A = diag(entry(0), …, entry(n−1)).
class DiagonalOperator : public OperatorBase {
 public:
  DiagonalOperator(Communicator& comm, std::int64_t n, at::ScalarType dtype,
                   const std::function<double(std::int64_t)>& entry)
      : OperatorBase(comm, n, dtype), diagonal_(sharded(entry)) {}
  void apply(const at::Tensor& x, at::Tensor& y) override {
    ++products;
    at::mul_out(y, diagonal_, x);
  }

 protected:
  at::Tensor diagonal_;
};

/// A = P D P, P = I − 2uuᵀ: the spectrum of D, with eigenvectors that no coordinate knows.
class RotatedDiagonalOperator : public DiagonalOperator {
 public:
  RotatedDiagonalOperator(Communicator& comm, std::int64_t n, at::ScalarType dtype,
                          const std::function<double(std::int64_t)>& entry)
      : DiagonalOperator(comm, n, dtype, entry),
        u_(sharded([](std::int64_t i) { return 1 + 0.5 * std::sin(static_cast<double>(i)); })) {
    scale_into(u_, 1 / std::sqrt(comm_.sum(norm_sq(u_))), u_);
  }
  void apply(const at::Tensor& x, at::Tensor& y) override {
    y.copy_(x);
    reflect(y);
    y.mul_(diagonal_);
    reflect(y);
    ++products;
  }

 private:
  void reflect(at::Tensor& x) { x.sub_(u_, 2 * comm_.sum(dot_product(u_, x))); }
  at::Tensor u_;
};

/// A = a given symmetric matrix [n, n], whole on every rank.
class DenseOperator : public OperatorBase {
 public:
  DenseOperator(Communicator& comm, const at::Tensor& matrix)
      : OperatorBase(comm, matrix.size(0), matrix.scalar_type()), matrix_(matrix) {}
  void apply(const at::Tensor& x, at::Tensor& y) override {
    at::Tensor full = at::empty({shard_.padded()}, options_);
    comm_.all_gather(x, full);
    const at::Tensor product = at::mv(matrix_, full.narrow(0, 0, shard_.n));
    y.zero_();
    y.narrow(0, 0, shard_.size()).copy_(product.narrow(0, shard_.begin(), shard_.size()));
    ++products;
  }

 private:
  at::Tensor matrix_;
};

/// A local vector with entries of a fixed pattern, no randomness: sin-hash of the global index.
inline at::Tensor pattern_vector(const LinearOperator& op, double phase = 0.3) {
  const Shard& shard = op.shard();
  at::Tensor local = at::zeros({shard.chunk}, at::kDouble);
  double* out = local.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < shard.size(); ++i)
    out[i] = std::sin(12.9898 * static_cast<double>(shard.begin() + i + 1) + phase) + 0.1;
  return local.to(op.options().dtype());
}

/// 0 … count − 1: all Ritz pairs of so many rows.
inline std::vector<std::size_t> first_indices(std::int64_t count) {
  std::vector<std::size_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

/// A symmetric matrix with Gaussian entries of variance 1/n off the diagonal: its spectrum tends to the semicircle on
/// [−2, 2].
inline at::Tensor gaussian_matrix(std::int64_t n, std::uint64_t seed) {
  at::manual_seed(seed);
  const at::Tensor a = at::randn({n, n}, at::kDouble);
  return (a + a.t()) / std::sqrt(2.0 * static_cast<double>(n));
}

/// A symmetric matrix Q diag(values) Qᵀ with a random orthogonal Q.
inline at::Tensor matrix_with_spectrum(const std::vector<double>& values, std::uint64_t seed) {
  at::manual_seed(seed);
  const auto n = static_cast<std::int64_t>(values.size());
  const at::Tensor q = std::get<0>(at::linalg_qr(at::randn({n, n}, at::kDouble)));
  const at::Tensor a = at::mm(q * at::tensor(values, at::kDouble), q.t());
  return (a + a.t()) / 2;
}

}  // namespace hesspect::testing

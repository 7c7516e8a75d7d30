// An orthonormal basis that grows by blocks of vectors: Gram-Schmidt with dependent vectors dropped.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/krylov/basis.h"

namespace hesspect {

/// W = Q C but for what was dropped: Q's new rows are the vectors' parts that no earlier row or vector holds.
struct Orthonormalised {
  std::vector<std::vector<double>> coefficients;  // [vectors][rows of the basis now]
  std::vector<double> norms;                      // [vectors]: ‖w_k‖ as it was given
  std::int64_t added = 0;                         // rows
};

struct OrthonormalOptions {
  std::int64_t n = 0;     // length of the vectors over all ranks: so many rows at most
  double tolerance = 0;   // a vector is dropped where tolerance · max(scale, ‖w_k‖ of all) or less is left of it
  double scale = 0;       // of vectors that came before
  std::int64_t step = 0;  // for the error's message: number of the first product
};

/// What is left of a vector, relative to what it was, and dropped as rounding: 1e-12 in float64, 1.2e-6 in float32.
double drop_tolerance(at::ScalarType vectors);
/// What rounding of vectors adds to a residual, relative to ‖A‖: 10 ε.
double rounding_unit(at::ScalarType vectors);

/// Makes the vectors orthogonal to the basis and to each other and appends what is left of each, normalised. Classical
/// Gram-Schmidt against the basis, all vectors in one pass, twice and more often where much is lost; modified
/// Gram-Schmidt, twice, among the vectors. Collective.
/// @param basis  of the vectors' dtype and device, orthonormal
/// @param w      [chunk] each, padding zero; overwritten
/// @throws NumericalError on all ranks, before anything is changed, if a vector is not finite; MemoryError (agreed) for
///         the basis
/// Source: Giraud, Langou & Rozložník, Comput. Math. Appl. 50 (2005); Stewart, Block Gram-Schmidt orthogonalization,
///         SIAM J. Sci. Comput. 31 (2008)
Orthonormalised append_orthonormal(Communicator& comm, Basis& basis, std::span<at::Tensor> w,
                                   const OrthonormalOptions& options);

}  // namespace hesspect

// One random probe: its start vector, its Lanczos run, its Gauss quadrature.
//
// For a probe z, zᵀf(A)z / zᵀz is an integral of f whose Gauss quadrature has the Ritz values as nodes and the squared
// first components of T's eigenvectors as weights (Golub & Meurant, Matrices, Moments and Quadrature, 2010, ch. 3 & 6).
#pragma once

#include <cstdint>
#include <span>

#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// Probe number `probe` (probe_numbers.h) as this rank's shard, on op's device and of its dtype, padding zero.
/// Spherical: norm √n. Collective over op.comm().
/// @throws MemoryError (agreed)
at::Tensor probe_vector(const LinearOperator& op, ProbeDistribution distribution, std::uint64_t seed,
                        std::uint64_t probe);

/// The same before there is an operator. @param options  of its vectors
at::Tensor probe_vector(Communicator& comm, const Shard& shard, const at::TensorOptions& options,
                        ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe);

/// Goes on after a breakdown from a fresh Gaussian vector, another one after each block. Collective.
/// @return as Lanczos::restart
bool restart_afresh(LinearOperator& op, Lanczos& run, std::uint64_t seed);

/// Whether T of a run has found every eigenvalue: it spans all n dimensions, or a fresh vector in what its closed space
/// left over has turned out to be an eigenvector. As a random one it has a part of every eigenvector there, so that
/// what is left over has that eigenvalue alone, n − steps + 1 times (a null space, as a rule). To the breakdown's
/// tolerance. Local.
bool all_found(const Tridiagonal& t);

/// The quadrature of a run so far. After restarts it is that of the first block, for the other start vectors are no
/// part of the probe; where `all_found`, it is that of the whole T, with zeros in β between blocks. Local.
ProbeQuadrature quadrature_of(const Tridiagonal& t, std::int64_t probe);

/// Nodes and weights from α [m] and β [m − 1]: for a result read back from a file. Local.
ProbeQuadrature quadrature_from(std::span<const double> alpha, std::span<const double> beta);

}  // namespace hesspect

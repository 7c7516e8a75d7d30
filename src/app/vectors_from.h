// Eigenvectors that an earlier run has written (--eigenvectors), read back as directions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/data/dataset.h"
#include "hesspect/krylov/shard.h"
#include "hesspect/model/parameter_layout.h"

namespace hesspect {

class EigenvectorFile {
 public:
  /// Looks at names, shapes and eigenvalues.
  /// @throws InputError for a file that is none of eigenvectors, or of a model with other parameters
  EigenvectorFile(const std::string& path, const ParameterLayout& layout);

  std::int64_t count() const { return std::ssize(order_); }

  /// The I-th from above of the file's eigenvalues, or for I below 0 from below, as a vector [n] of norm 1 in float64.
  /// @throws UsageError where there are not so many; InputError for one that is zero or not finite, or that has more
  ///         than rounding in rows that vectors don't hold
  at::Tensor vector(std::int64_t number) const;

  /// A rank's part of the vector at a place in the file, from 0, in float64, and its parts of two sums of squares.
  struct Local {
    at::Tensor entries;          // [chunk]
    double held = 0, whole = 0;  // over the entries that vectors hold, and over all that the file has
    /// Of the sums over ranks: whether the vector is zero, not finite, or has more than rounding in rows that vectors
    /// don't hold.
    static bool is_of_no_use(double held, double whole);
  };
  /// Reads what this rank has of it alone, a stretch at a time.
  Local local_at(std::int64_t place, const Shard& shard) const;

 private:
  /// Its entries in the layout, and its squared norm over all that the file has.
  at::Tensor read(std::int64_t place, double& whole) const;
  /// The vector's entries [begin, end) of a parameter, as vectors hold it, into `to`.
  void read_part(std::int64_t place, std::size_t parameter, std::int64_t begin, std::int64_t end,
                 const at::Tensor& to) const;
  /// A rank's part of the square norm of rows that vectors don't hold and of those that they do.
  double square_of_rows(std::int64_t place, std::size_t parameter, const Shard& shard) const;

  const ParameterLayout& layout_;
  std::unique_ptr<ArrayFile> file_;
  std::vector<std::string> arrays_;  // of each of the layout's entries
  std::vector<std::int64_t> order_;  // positions in the file, the largest eigenvalue first
};

}  // namespace hesspect

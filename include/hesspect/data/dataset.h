// The data a curvature is taken over: arrays of equal first dimension in an HDF5 or safetensors file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace hesspect {

/// One array of a data file.
struct ArrayInfo {
  std::string name;  // full path in HDF5 without the leading '/'
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;  // rows first
};

/// A data file, opened read-only. The format is told by content (HDF5's or safetensors' signature), not by its name.
class ArrayFile {
 public:
  virtual ~ArrayFile() = default;

  /// @throws InputError: no such file, a directory, unreadable, neither format, or broken
  static std::unique_ptr<ArrayFile> open(const std::filesystem::path& path);

  virtual const std::filesystem::path& path() const = 0;
  /// "HDF5" or "safetensors"
  virtual std::string format() const = 0;
  /// Every numeric array in the file. What is not numeric (strings, compounds) is left out.
  virtual const std::vector<ArrayInfo>& arrays() const = 0;
  /// Rows [begin, end) of an array as a contiguous CPU tensor of the file's dtype. Reads only those rows.
  /// @throws InputError if the name is unknown (with the near name), or the read fails
  virtual at::Tensor read_rows(const std::string& name, std::int64_t begin, std::int64_t end) const = 0;
  /// @throws InputError if the name is unknown (with the near name)
  const ArrayInfo& info(const std::string& name) const;
};

/// Rows [begin, end) of a data set.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The contiguous rows of `rank` among `ranks`: sizes differ by one at most, and may be 0.
RowRange shard_rows(std::int64_t rows, int ranks, int rank);

/// Cuts a range into micro-batches of `micro_batch` rows; the last may be shorter. Empty for an empty range.
std::vector<RowRange> micro_batches(RowRange range, std::int64_t micro_batch);

/// Where the rows come from: which array feeds which model input.
struct DatasetSpec {
  std::filesystem::path path;
  std::vector<std::string> inputs;  // array names, in the order of the model's inputs
  std::string target;               // array name; empty where the loss takes none
  std::int64_t samples = 0;         // use the first so many rows; 0: all
  std::string weight = {};          // array name; empty where all terms of the loss weigh the same
};

/// One rank's rows in memory, on the CPU, in the file's dtypes.
struct DataShard {
  std::vector<at::Tensor> inputs;  // each [rows, …]
  at::Tensor target;               // [rows, …] or undefined
  at::Tensor weight;               // [rows, …] or undefined
  RowRange rows;                   // which global rows these are
  std::int64_t global_rows = 0;
};

/// Reads this rank's rows, and only those.
/// @throws InputError: unknown array name, arrays of unequal row count (naming both), zero rows, a scalar array,
///         `samples` beyond the rows there are, or a NaN or infinity in a floating array (naming array and row)
DataShard load_shard(const ArrayFile& file, const DatasetSpec& spec, int ranks, int rank);

}  // namespace hesspect

// The data a curvature is taken over: arrays of equal first dimension in an HDF5 or safetensors file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hesspect {

/// One array of a data file.
struct ArrayInfo {
  std::string name;  // full path in HDF5 without the leading '/'
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
};

/// A data file, opened read-only. The format is told by content (HDF5's or safetensors' signature), not by its name.
class ArrayFile {
 public:
  virtual ~ArrayFile() = default;

  /// @throws InputError: no such file, a directory, unreadable, neither format, or broken
  static std::unique_ptr<ArrayFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// "HDF5" or "safetensors"
  virtual std::string format() const = 0;
  /// Every numeric array in the file. What is not numeric (strings, compounds) is left out.
  const std::vector<ArrayInfo>& arrays() const { return arrays_; }
  /// Entries [begin, end) of dimension `dim` of an array, as a contiguous CPU tensor of the file's dtype and order of
  /// dimensions. Reads only those.
  /// @throws InputError if the name is unknown (with the near name), it has no such dimension, or the read fails
  virtual at::Tensor read_slab(const std::string& name, std::int64_t dim, std::int64_t begin,
                               std::int64_t end) const = 0;
  /// Entries [begin, end) of the second dimension, of entry `at` of the first, as a contiguous CPU tensor of the file's
  /// dtype [end - begin, the further dimensions]. Reads only those.
  /// @throws InputError as read_slab
  virtual at::Tensor read_block(const std::string& name, std::int64_t at, std::int64_t begin,
                                std::int64_t end) const = 0;
  /// Rows [begin, end), which lie along dimension `dim` in the file, as a contiguous tensor with the rows first.
  at::Tensor read_rows(const std::string& name, std::int64_t begin, std::int64_t end, std::int64_t dim = 0) const;
  /// @throws InputError if the name is unknown (with the near name)
  const ArrayInfo& info(const std::string& name) const;

 protected:
  explicit ArrayFile(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
  std::vector<ArrayInfo> arrays_;
};

/// Rows [begin, end) of a data set.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The contiguous rows of `rank` among `ranks`, in whole units of `unit_rows`: sizes differ by one unit at most, and
/// may be 0. @param rows  a multiple of unit_rows
RowRange shard_rows(std::int64_t rows, int ranks, int rank, std::int64_t unit_rows = 1);
/// The same, but that an edge which is a row away from one of `groups` equal groups of rows is moved there.
RowRange shard_rows_at_groups(std::int64_t rows, int ranks, int rank, std::int64_t groups);

/// Cuts a range into micro-batches of `micro_batch` rows; the last may be shorter. Empty for an empty range.
std::vector<RowRange> micro_batches(RowRange range, std::int64_t micro_batch);

/// Where the rows come from: which array feeds which model input.
struct DatasetSpec {
  std::filesystem::path path;
  std::vector<std::string> inputs;            // array names, in the order of the model's inputs
  std::string target;                         // array name; empty where the loss takes none
  std::int64_t samples = 0;                   // use the first so many rows; 0: all
  std::string weight = {};                    // array name; empty where all terms of the loss weigh the same
  std::vector<std::int64_t> input_dims = {};  // where each input's rows lie in the file; 0 for inputs beyond its end
  std::int64_t target_dim = 0;                // and the target's; the weights' too, where they have as many dimensions
  std::int64_t unit_rows = 1;                 // rows that are never parted: shards are whole units
  /// Groups that rows are told apart by (core/row_groups.h): no shard leaves a single row on one side of a group's
  /// edge.
  std::int64_t row_groups = 0;
};

/// One rank's rows in memory, on the CPU, in the file's dtypes.
struct DataShard {
  std::vector<at::Tensor> inputs;  // each [rows, …]
  at::Tensor target;               // [rows, …] or undefined
  at::Tensor weight;               // [rows, …] or undefined
  RowRange rows;                   // which global rows these are
  std::int64_t global_rows = 0;
};

/// How many rows the spec stands for: those of its arrays, or its `samples`.
/// @throws InputError: unknown array name, arrays of unequal row count (naming both), zero rows, an array without the
///         dimension of its rows, `samples` beyond the rows there are
std::int64_t count_rows(const ArrayFile& file, const DatasetSpec& spec);

/// @throws InputError: rows that are no multiple of the spec's unit
void require_whole_units(std::int64_t rows, const DatasetSpec& spec);

/// Reads this rank's rows, and only those; every tensor with the rows first.
/// @throws InputError as count_rows; rows that are no multiple of the unit; a NaN or infinity in a floating array
///         (naming array and row)
DataShard load_shard(const ArrayFile& file, const DatasetSpec& spec, int ranks, int rank);

/// Reads the rows of these numbers, in this order; `rows` of the result begins at the first of them.
/// @throws InputError as load_shard
DataShard load_rows(const ArrayFile& file, const DatasetSpec& spec, std::span<const std::int64_t> rows);

/// Numbers of up to `most` units that differ from each other as much as those of this data do: in length (padding,
/// masks), in classes, in size. Looks at the features of up to 64 MiB of rows, spread over the data; the same data have
/// the same units. Source: farthest-point selection, Gonzalez, Theor. Comput. Sci. 38 (1985) 293.
/// @return unit numbers (rows / unit_rows), at least one
std::vector<std::int64_t> diverse_units(const ArrayFile& file, const DatasetSpec& spec, std::int64_t most);

/// The numbers of the rows of some units, in their order.
std::vector<std::int64_t> rows_of_units(std::span<const std::int64_t> units, std::int64_t unit_rows);

/// Features by which rows differ, a line each: for every array the mean, the share of zeros, of negative entries, and
/// of entries at the end that repeat the last one. @return [rows, features], double; a column that is the same in all
/// rows is zero
at::Tensor row_features(const DataShard& shard);

}  // namespace hesspect

// Vectors over a model's parameters as a file: eigenvectors, or the Hessian's diagonal, under the parameters' own
// names.
//
// HDF5 (`.h5`, `.hdf5`): /vectors/<name> [k, shape of the parameter] beside /values [k], /quantity and /run_id.
// safetensors: <name> [k, shape of the parameter]; quantity, run_id, and values as a JSON list in the metadata.
// Both are laid out first; then each vector's entries are written at their places, in any order, into a temporary file,
// which is synced and renamed when all are there: no more than one vector is in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hesspect {

/// One parameter tensor within the flat vector.
struct VectorPart {
  std::string name;
  std::vector<std::int64_t> shape;  // in the file
  std::int64_t offset = 0;
  std::int64_t size = 0;
  /// Which of the tensor's rows the flat vector holds, ascending: the others are zero. nullptr: all.
  std::shared_ptr<const std::vector<std::int64_t>> rows = nullptr;
};

/// Entries of one part in the file.
std::int64_t entries_of(const VectorPart& part);

struct VectorsInfo {
  std::string quantity;        // "eigenvectors of the Hessian"
  std::vector<double> values;  // [k]: eigenvalues; for a diagonal its trace and that of its standard error
  std::vector<VectorPart> parts;
  bool float64 = false;  // of the entries, else float32
  std::string units;     // of the entries; "" for eigenvectors
  std::string run_id;
};

class VectorsFile {
 public:
  /// True for a name that says which format: .h5, .hdf5, .safetensors.
  static bool is_known(const std::filesystem::path& path);
  /// Opens the temporary file and lays it out; its disk space is reserved where the file system can do that.
  /// @throws UsageError for another suffix; InputError where it can't be written
  VectorsFile(const std::filesystem::path& path, const VectorsInfo& info);
  ~VectorsFile();  // removes the temporary file where commit() was not called
  VectorsFile(const VectorsFile&) = delete;
  VectorsFile& operator=(const VectorsFile&) = delete;
  /// Vector i of k, in any order. @param flat  [n], whole, in the layout of `parts`; converted where the file's type
  /// is another one
  /// @throws InputError if it can't be written
  void write(std::int64_t i, std::span<const float> flat);
  void write(std::int64_t i, std::span<const double> flat);
  /// Entries [begin, begin + entries.size()) of vector i, where it does not come whole; all of one part, of which the
  /// file has all rows.
  void write_piece(std::int64_t i, std::int64_t begin, std::span<const float> entries);
  void write_piece(std::int64_t i, std::int64_t begin, std::span<const double> entries);
  /// Vector i of k: the unit vector of an entry of the file's, counted over all parts.
  void write_unit(std::int64_t i, std::int64_t entry);
  /// When all k are written. Where the path is a symbolic link, its target is replaced.
  /// @throws InputError; the earlier file of that name is as it was
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect

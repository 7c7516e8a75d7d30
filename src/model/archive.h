// The `.pt2` archive: a zip whose records are the graph (JSON) and the raw bytes of weights and constants.
//
// Written by torch.export.save (torch/export/pt2_archive/_package.py lists the record names). Only what is asked for is
// read; everything the archive says is checked against what it holds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hesspect/core/zip_archive.h"

namespace hesspect {

/// One entry of model_weights_config.json or model_constants_config.json.
struct ArchivedTensor {
  std::string record;  // zip record that holds the raw bytes; tied weights share it
  at::ScalarType dtype;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
  std::int64_t storage_offset = 0;
  bool requires_grad = false;
  bool has_data = true;  // false where the program was exported on the meta device, or with fake tensors
};

class Pt2Archive {
 public:
  /// @throws InputError: no file, a directory, not a zip, or not written by torch.export.save
  explicit Pt2Archive(const std::filesystem::path& path);

  const nlohmann::json& model() const { return model_; }
  /// Parameters and persistent buffers, by fully qualified name.
  const std::map<std::string, ArchivedTensor>& weights() const { return weights_; }
  /// Lifted constants and non-persistent buffers, by name.
  const std::map<std::string, ArchivedTensor>& constants() const { return constants_; }
  /// Whether some of them have no data.
  bool lacks_data() const;
  /// A tensor of the file: CPU, stored dtype and strides. Its memory is the mapped file's: read it, never write it.
  at::Tensor read(const std::string& name, const ArchivedTensor& entry) const;
  /// What all tensors together may take in memory: ten times the file, and some more for small files.
  std::int64_t most_bytes() const;
  /// "path: what": the start of every message about this file.
  std::string where() const;

 private:
  const ZipEntry* find(const std::string& record) const;
  /// A record's JSON; discarded where it is none.
  nlohmann::json parsed(const std::string& record) const;
  std::map<std::string, ArchivedTensor> read_config(const std::string& folder, const std::string& record) const;

  std::filesystem::path path_;
  std::shared_ptr<ZipArchive> zip_;
  nlohmann::json model_;
  std::map<std::string, ArchivedTensor> weights_, constants_;
};

/// An integer of the file's JSON, where numbers have no bound. @throws InputError for what is none of 64 bits
std::int64_t integer_from(const nlohmann::json& value);

/// The schema's code of the type in a value's meta; 0 where there is none.
std::int64_t type_code_of(const nlohmann::json& meta);

/// The c10 scalar type of the export schema's code (its enum differs from c10's: float32 is 7).
/// @throws InputError for a type that hesspect does not run
at::ScalarType scalar_type_from_schema(std::int64_t code);

}  // namespace hesspect

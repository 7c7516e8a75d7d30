// How a program's parameters lie in one flat vector.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/core/entry_numbers.h"

namespace hesspect {

/// One distinct parameter tensor. Tied weights are one parameter, under the first name, the others being aliases.
/// A complex one lies in the flat vector as pairs of reals: its shape here ends with a dimension of 2.
struct ParameterEntry {
  std::string name;                  // fully qualified, as in the model's state dict
  std::vector<std::string> aliases;  // further names of the same weight
  std::vector<std::int64_t> shape;   // of its reals
  at::ScalarType stored_dtype;       // in the .pt2
  std::int64_t offset = 0;           // first entry in the flat vector
  std::int64_t numel = 0;            // of its reals
  /// Of a table that holds some of its rows alone (rows_in_use.h), which: ascending; then shape, offset and numel are
  /// of these, and the next are of the model's own.
  std::shared_ptr<const std::vector<std::int64_t>> rows = nullptr;
  std::vector<std::int64_t> model_shape = {};
  std::int64_t model_offset = 0;
  std::int64_t model_numel = 0;

  bool is_complex() const { return c10::isComplexType(stored_dtype); }
};

class ParameterLayout {
 public:
  void add(ParameterEntry entry);  // sets its offsets, and what is of the model where all its rows are held
  /// n: the length of the flat vector.
  std::int64_t size() const { return size_; }
  /// The model's parameters: n, and those in rows that are left out, where the loss has no curvature at all.
  std::int64_t model_size() const { return model_size_; }
  /// Which of the model's parameters the vector's entries are; nullptr where it has them all.
  std::shared_ptr<const EntryNumbers> numbers() const;
  const std::vector<ParameterEntry>& entries() const { return entries_; }
  /// How many complex numbers are among the parameters, each of which counts as two.
  std::int64_t complex_count() const;
  /// By name or alias; nullptr if there is none.
  const ParameterEntry* find(const std::string& name) const;

  /// Tensors [shape of entry] that alias `flat` [n], in entry order.
  std::vector<at::Tensor> views(const at::Tensor& flat) const;

 private:
  std::vector<ParameterEntry> entries_;
  std::int64_t size_ = 0, model_size_ = 0;
};

/// What an entry holds of a tensor of the model's own shape: its rows, or all of it.
at::Tensor rows_held(const ParameterEntry& entry, const at::Tensor& whole);

}  // namespace hesspect

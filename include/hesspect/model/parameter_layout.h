// How a program's parameters lie in one flat vector.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

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

  bool is_complex() const { return c10::isComplexType(stored_dtype); }
};

class ParameterLayout {
 public:
  void add(ParameterEntry entry);  // sets its offset
  /// n: the length of the flat vector.
  std::int64_t size() const { return size_; }
  const std::vector<ParameterEntry>& entries() const { return entries_; }
  /// How many complex numbers are among the parameters, each of which counts as two.
  std::int64_t complex_count() const;
  /// By name or alias; nullptr if there is none.
  const ParameterEntry* find(const std::string& name) const;

  /// Tensors [shape of entry] that alias `flat` [n], in entry order.
  std::vector<at::Tensor> views(const at::Tensor& flat) const;

 private:
  std::vector<ParameterEntry> entries_;
  std::int64_t size_ = 0;
};

}  // namespace hesspect

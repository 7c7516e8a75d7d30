// The models that PyTorch exported for the tests, with the references that PyTorch computed (tests/fixtures).
#pragma once

#include <ATen/ATen.h>
#include <hdf5.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "hesspect/curvature/loss.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect::test {

inline std::string fixtures_dir() {
  const char* folder = std::getenv("HESSPECT_FIXTURES");
  return folder != nullptr ? folder : "fixtures";
}

/// Small models for every loss with its options and weights.
inline constexpr const char* kLossCases[] = {"ce_weights",
                                             "ce_row_weights",
                                             "ce_spatial_weights",
                                             "ce_soft",
                                             "ce_soft_spatial",
                                             "masked_lm",
                                             "masked_lm_weights",
                                             "causal_lm_weights",
                                             "nll",
                                             "mse_weights",
                                             "l1",
                                             "smooth_l1",
                                             "huber",
                                             "bce",
                                             "bce_pos_weight",
                                             "bce_pos_weight_spatial"};

/// One case: NAME.pt2, NAME.data.h5 and NAME.ref.h5.
class Fixture {
 public:
  explicit Fixture(const std::string& name) : name_(name) {
    loss_.kind = loss_kind_from(text_attribute("loss"));
    loss_.shift = int_attribute("shift");
    loss_.ignore_index = int_attribute("ignore_index");
    loss_.label_smoothing = real_attribute("label_smoothing", loss_.label_smoothing);
    loss_.beta = real_attribute("beta", loss_.beta);
    loss_.delta = real_attribute("delta", loss_.delta);
    if (has("class_weights")) loss_.class_weights = reference("class_weights");
    if (has("pos_weight")) loss_.pos_weight = reference("pos_weight");
    output_index_ = static_cast<int>(int_attribute("output_index"));
    n_params_ = int_attribute("n_params");
    data_ = ArrayFile::open(path(".data.h5"));
  }

  std::string path(const std::string& ending) const { return fixtures_dir() + "/" + name_ + ending; }
  const LossOptions& loss() const { return loss_; }
  int output_index() const { return output_index_; }
  std::int64_t n_params() const { return n_params_; }
  std::int64_t rows() const { return data_->arrays().at(0).shape.at(0); }

  bool has(const std::string& array) const {
    const hid_t file = open_reference();
    bool found = true;  // every group on the way must exist, for HDF5 to ask for the last link
    for (std::size_t at = array.find('/'); found && at != std::string::npos; at = array.find('/', at + 1))
      found = H5Lexists(file, array.substr(0, at).c_str(), H5P_DEFAULT) > 0;
    found = found && H5Lexists(file, array.c_str(), H5P_DEFAULT) > 0;
    H5Fclose(file);
    return found;
  }
  /// An array of the reference file as float64, such as "f64/grad/fc.weight"; a scalar has no dimensions.
  at::Tensor reference(const std::string& array) const {
    const hid_t file = open_reference();
    const hid_t id = H5Dopen2(file, array.c_str(), H5P_DEFAULT);
    if (id < 0) throw std::runtime_error(name_ + ".ref.h5 has no " + array);
    const hid_t space = H5Dget_space(id);
    std::vector<hsize_t> sizes(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
    if (!sizes.empty()) H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    at::Tensor tensor = at::empty(std::vector<std::int64_t>(sizes.begin(), sizes.end()), at::kDouble);
    H5Dread(id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data_ptr());
    H5Sclose(space);
    H5Dclose(id);
    H5Fclose(file);
    return tensor;
  }
  /// "f64" or "f32": the group of the references in that dtype.
  static std::string group(at::ScalarType dtype) { return dtype == at::kDouble ? "f64" : "f32"; }

  /// A vector kept by parameter name ("grad", "v", "hv") in the program's flat layout [n], float64.
  at::Tensor flat(const Program& program, at::ScalarType dtype, const std::string& what) const {
    at::Tensor vector = at::zeros({program.layout().size()}, at::kDouble);
    for (const ParameterEntry& entry : program.layout().entries())
      vector.narrow(0, entry.offset, entry.numel)
          .copy_(reference(group(dtype) + "/" + what + "/" + entry.name).reshape({-1}).to(at::kDouble));
    return vector;
  }

  DataShard shard(const Program& program, int ranks = 1, int rank = 0, std::int64_t row_groups = 0) const {
    DatasetSpec spec;
    spec.row_groups = row_groups;
    spec.path = path(".data.h5");
    for (const InputSpec& input : program.inputs()) spec.inputs.push_back(input.name);
    if (needs_target(loss_.kind)) spec.target = "target";
    for (const ArrayInfo& array : data_->arrays())
      if (array.name == "weight") spec.weight = "weight";
    return load_shard(*data_, spec, ranks, rank);
  }

 private:
  hid_t open_reference() const { return H5Fopen(path(".ref.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT); }

  std::string text_attribute(const char* attribute) const {
    const hid_t file = open_reference();
    const hid_t id = H5Aopen(file, attribute, H5P_DEFAULT);
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    char* value = nullptr;
    H5Aread(id, type, &value);
    const std::string text = value != nullptr ? value : "";
    H5free_memory(value);
    H5Tclose(type);
    H5Aclose(id);
    H5Fclose(file);
    return text;
  }
  std::int64_t int_attribute(const char* attribute) const {
    const hid_t file = open_reference();
    const hid_t id = H5Aopen(file, attribute, H5P_DEFAULT);
    std::int64_t value = 0;
    H5Aread(id, H5T_NATIVE_INT64, &value);
    H5Aclose(id);
    H5Fclose(file);
    return value;
  }

  double real_attribute(const char* attribute, double usual) const {
    const hid_t file = open_reference();
    double value = usual;
    if (H5Aexists(file, attribute) > 0) {
      const hid_t id = H5Aopen(file, attribute, H5P_DEFAULT);
      H5Aread(id, H5T_NATIVE_DOUBLE, &value);
      H5Aclose(id);
    }
    H5Fclose(file);
    return value;
  }

  std::string name_;
  std::unique_ptr<ArrayFile> data_;
  LossOptions loss_;
  int output_index_ = 0;
  std::int64_t n_params_ = 0;
};

inline double relative_error(const at::Tensor& value, const at::Tensor& reference) {
  const at::Tensor r = reference.to(at::kDouble);
  const double scale = r.norm().item<double>();
  const double error = (value.to(at::kDouble) - r).norm().item<double>();
  return scale > 0 ? error / scale : error;
}

}  // namespace hesspect::test

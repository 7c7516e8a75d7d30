#include "hesspect/data/dataset.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/input_error.h"
#include "core/mutation.h"
#include "core/temporary_folder.h"
#include "hesspect/core/hdf5_handle.h"

namespace hesspect::dataset_test {
namespace {

namespace fs = std::filesystem;
using test::input_error;

/// Writes HDF5 files as users' tools do.
class Writer {
 public:
  explicit Writer(fs::path path)
      : path_(std::move(path)), file_(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}

  template <class Value>
  void add(const std::string& name, hid_t file_type, hid_t memory_type, const std::vector<hsize_t>& shape,
           const std::vector<Value>& values, bool compressed = false) {
    const hdf5::Space space(shape.empty() ? H5Screate(H5S_SCALAR)
                                          : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr));
    const hdf5::PropertyList links(H5Pcreate(H5P_LINK_CREATE));
    H5Pset_create_intermediate_group(links.get(), 1);
    const hdf5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
    if (compressed) {
      std::vector<hsize_t> chunk(shape);
      chunk[0] = std::min<hsize_t>(chunk[0], 3);
      H5Pset_chunk(create.get(), static_cast<int>(chunk.size()), chunk.data());
      H5Pset_shuffle(create.get());
      H5Pset_deflate(create.get(), 5);
    }
    const hdf5::Dataset dataset(
        H5Dcreate2(file_.get(), name.c_str(), file_type, space.get(), links.get(), create.get(), H5P_DEFAULT));
    ASSERT_TRUE(dataset) << name;
    ASSERT_GE(H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << name;
  }
  void add_doubles(const std::string& name, const std::vector<hsize_t>& shape, std::vector<double> values = {}) {
    if (values.empty()) {
      values.resize(std::accumulate(shape.begin(), shape.end(), hsize_t{1}, std::multiplies<>()));
      std::iota(values.begin(), values.end(), 0.0);
    }
    add(name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, shape, values);
  }
  hid_t id() const { return file_.get(); }
  fs::path close() {
    file_.reset();
    return path_;
  }

 private:
  fs::path path_;
  hdf5::File file_;
};

hdf5::Type half_type() {
  hdf5::Type type(H5Tcopy(H5T_IEEE_F32LE));  // as h5py makes numpy's float16
  H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), 15);
  return type;
}

hdf5::Type enum_type(hid_t base, const std::vector<std::string>& names) {
  hdf5::Type type(H5Tenum_create(base));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto value = static_cast<signed char>(i);
    H5Tenum_insert(type.get(), names[i].c_str(), &value);
  }
  return type;
}

std::string safetensors_of(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

class Dataset : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return folder_.path() / name; }
  test::TemporaryFolder folder_;
};

TEST(Shards, CoverAllRowsInOrder) {
  for (std::int64_t rows : {0, 1, 2, 7, 12, 1000}) {
    for (int ranks : {1, 2, 3, 5, 16}) {
      std::int64_t reached = 0;
      std::int64_t least = rows;
      std::int64_t most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RowRange range = shard_rows(rows, ranks, rank);
        EXPECT_EQ(range.begin, reached);
        reached = range.end;
        least = std::min(least, range.size());
        most = std::max(most, range.size());
      }
      EXPECT_EQ(reached, rows);
      EXPECT_LE(most - least, 1);
    }
  }
}

TEST(Shards, UnitsAreNeverParted) {
  for (const int ranks : {1, 2, 3, 5, 16}) {
    std::int64_t reached = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const RowRange range = shard_rows(28, ranks, rank, 4);
      EXPECT_EQ(range.begin, reached);
      EXPECT_EQ(range.size() % 4, 0);
      reached = range.end;
    }
    EXPECT_EQ(reached, 28);
  }
  EXPECT_EQ(shard_rows(28, 3, 0, 28).size(), 28);  // all rows are one unit: the first rank has it
  EXPECT_EQ(shard_rows(28, 3, 1, 28).size(), 0);
}

TEST(Shards, MicroBatches) {
  const auto batches = micro_batches({10, 17}, 3);
  ASSERT_EQ(batches.size(), 3U);
  EXPECT_EQ(batches[0].begin, 10);
  EXPECT_EQ(batches[2].begin, 16);
  EXPECT_EQ(batches[2].end, 17);
  EXPECT_TRUE(micro_batches({4, 4}, 3).empty());
  EXPECT_EQ(micro_batches({0, 5}, std::numeric_limits<std::int64_t>::max()).size(), 1U);
  EXPECT_THROW(micro_batches({0, 5}, 0), UsageError);
}

TEST_F(Dataset, ListsNumericArraysByPath) {
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {4, 2});
  writer.add_doubles("train/images/raw", {4});
  writer.add_doubles("scalar", {});
  hdf5::Type text(H5Tcopy(H5T_C_S1));
  H5Tset_size(text.get(), 4);
  writer.add<char>("text", text.get(), text.get(), {1}, {'a', 'b', 'c', 'd'});
  hdf5::Type complex(H5Tcreate(H5T_COMPOUND, 16));
  H5Tinsert(complex.get(), "r", 0, H5T_NATIVE_DOUBLE);
  H5Tinsert(complex.get(), "i", 8, H5T_NATIVE_DOUBLE);
  writer.add<double>("complex", complex.get(), complex.get(), {1}, {1, 2});
  H5Lcreate_soft("/train/images/raw", writer.id(), "alias", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/nowhere", writer.id(), "dangling", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("/etc/passwd", "/x", writer.id(), "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/train", writer.id(), "train/images/circle", H5P_DEFAULT, H5P_DEFAULT);

  const auto file = ArrayFile::open(writer.close());
  EXPECT_EQ(file->format(), "HDF5");
  std::vector<std::string> names;
  for (const auto& array : file->arrays()) names.push_back(array.name);
  EXPECT_EQ(names, (std::vector<std::string>{"alias", "complex", "scalar", "train/images/raw", "x"}));
  EXPECT_EQ(file->info("x").shape, (std::vector<std::int64_t>{4, 2}));
  EXPECT_EQ(file->info("/train/images/raw").shape, (std::vector<std::int64_t>{4}));
  EXPECT_TRUE(file->read_rows("alias", 1, 3).equal(at::tensor({1.0, 2.0}, at::kDouble)));
  EXPECT_CONTAINS(input_error([&] { file->info("train/image/raw"); }), "did you mean 'train/images/raw'?");
  EXPECT_CONTAINS(input_error([&] { file->info("qqqqqqqq"); }), "it holds alias, complex, scalar, train/images/raw, x");
}

TEST_F(Dataset, ReadsEveryNumericType) {
  Writer writer(at("d.h5"));
  const std::vector<double> values{0, 1, -2, 100};
  const std::vector<double> positive{0, 1, 2, 200};
  const hdf5::Type half = half_type();
  const auto add = [&](const char* name, hid_t type, const std::vector<double>& data) {
    writer.add(name, type, H5T_NATIVE_DOUBLE, {4}, data);
  };
  add("f16", half.get(), values);
  add("f32", H5T_IEEE_F32LE, values);
  add("f64be", H5T_IEEE_F64BE, values);
  add("f80", H5T_NATIVE_LDOUBLE, values);
  add("i8", H5T_STD_I8LE, values);
  add("u8", H5T_STD_U8LE, positive);
  add("i16", H5T_STD_I16BE, values);
  add("u16", H5T_STD_U16LE, {0, 1, 2, 65535});
  add("i32", H5T_STD_I32LE, values);
  add("u32", H5T_STD_U32LE, {0, 1, 2, 4294967295});
  add("i64", H5T_STD_I64LE, values);
  add("u64", H5T_STD_U64LE, positive);
  const hdf5::Type boolean = enum_type(H5T_NATIVE_INT8, {"FALSE", "TRUE"});
  writer.add<signed char>("bool", boolean.get(), boolean.get(), {4}, {0, 1, 1, 0});
  const hdf5::Type colour = enum_type(H5T_NATIVE_INT8, {"RED", "GREEN", "BLUE"});
  writer.add<signed char>("enum", colour.get(), colour.get(), {4}, {0, 2, 1, 2});
  writer.add<std::uint64_t>("huge", H5T_STD_U64LE, H5T_NATIVE_UINT64, {1}, {~std::uint64_t{0}});

  const auto file = ArrayFile::open(writer.close());
  const auto check = [&](const char* name, at::ScalarType dtype, const std::vector<double>& expected) {
    EXPECT_EQ(file->info(name).dtype, dtype) << name;
    const auto rows = file->read_rows(name, 0, 4);
    EXPECT_EQ(rows.scalar_type(), dtype) << name;
    EXPECT_TRUE(rows.to(at::kDouble).equal(at::tensor(expected, at::kDouble))) << name << " " << rows;
  };
  check("f16", at::kFloat, values);
  check("f32", at::kFloat, values);
  check("f64be", at::kDouble, values);
  check("f80", at::kDouble, values);
  check("i8", at::kChar, values);
  check("u8", at::kByte, positive);
  check("i16", at::kShort, values);
  check("u16", at::kInt, {0, 1, 2, 65535});
  check("i32", at::kInt, values);
  check("u32", at::kLong, {0, 1, 2, 4294967295});
  check("i64", at::kLong, values);
  check("u64", at::kLong, positive);
  check("bool", at::kBool, {0, 1, 1, 0});
  check("enum", at::kChar, {0, 2, 1, 2});
  EXPECT_CONTAINS(input_error([&] { file->read_rows("huge", 0, 1); }), "does not fit int64");
}

TEST_F(Dataset, ReadsOnlyTheRowsAskedFor) {
  Writer writer(at("d.h5"));
  std::vector<float> values(10 * 2 * 3);
  std::iota(values.begin(), values.end(), 0.0F);
  writer.add("plain", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {10, 2, 3}, values);
  writer.add("packed", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {10, 2, 3}, values, true);
  const auto file = ArrayFile::open(writer.close());
  const auto whole = at::arange(60, at::kFloat).view({10, 2, 3});
  for (const char* name : {"plain", "packed"}) {
    for (auto [begin, end] : {std::pair{0, 10}, {2, 7}, {9, 10}, {4, 4}, {0, 0}, {10, 10}}) {
      const auto rows = file->read_rows(name, begin, end);
      EXPECT_TRUE(rows.is_contiguous());
      EXPECT_TRUE(rows.equal(whole.slice(0, begin, end))) << name << " " << begin << " " << end;
    }
    EXPECT_CONTAINS(input_error([&] { file->read_rows(name, 5, 11); }), "has 10 rows; rows 5 to 11");
    EXPECT_CONTAINS(input_error([&] { file->read_rows(name, 5, 4); }), "rows 5 to 4");
    EXPECT_CONTAINS(input_error([&] { file->read_rows(name, -1, 4); }), "rows -1 to 4");
  }
}

TEST_F(Dataset, Safetensors) {
  std::string data(4 * 2 * 2 + 4, '\0');
  for (int i = 0; i < 8; ++i) data[static_cast<std::size_t>(2 * i)] = static_cast<char>(i);
  data[16] = 1;
  data[18] = 5;  // a bool that is neither 0 nor 1
  const auto path =
      folder_.write("d.bin", safetensors_of(R"({"x":{"dtype":"I16","shape":[4,2],"data_offsets":[0,16]},)"
                                            R"("mask":{"dtype":"BOOL","shape":[4],"data_offsets":[16,20]}})",
                                            data));
  const auto file = ArrayFile::open(path);
  EXPECT_EQ(file->format(), "safetensors");
  EXPECT_TRUE(file->read_rows("x", 1, 3).equal(at::arange(2, 6, at::kShort).view({2, 2})));
  EXPECT_TRUE(file->read_rows("mask", 0, 4).equal(at::tensor({1, 0, 1, 0}, at::kInt).to(at::kBool)));
  EXPECT_EQ(file->read_rows("x", 4, 4).sizes(), (at::IntArrayRef{0, 2}));
  EXPECT_CONTAINS(input_error([&] { file->read_rows("x", 0, 5); }), "has 4 rows");
  EXPECT_CONTAINS(input_error([&] { file->info("y"); }), "holds no numeric array 'y'");
}

TEST_F(Dataset, FilesThatCannotBeRead) {
  const auto error_of = [](const fs::path& path) { return input_error([&] { ArrayFile::open(path); }); };
  EXPECT_CONTAINS(error_of(at("none.h5")), "no such file");
  EXPECT_CONTAINS(error_of(folder_.path()), "is a directory");
  EXPECT_CONTAINS(error_of(folder_.write("empty.h5", "")), "neither an HDF5 nor a safetensors file");
  EXPECT_CONTAINS(error_of(folder_.write("text.h5", "row,label\n1,2\n")), "neither an HDF5 nor a safetensors file");
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {400, 2});
  const std::string whole = test::read_bytes(writer.close());
  EXPECT_CONTAINS(error_of(folder_.write("cut.h5", whole.substr(0, whole.size() / 2))), "truncated file");
}

// HDF5 keeps quiet on stderr: rank 0 alone talks there.
TEST_F(Dataset, FailuresPrintNothing) {
  ::testing::internal::CaptureStderr();
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {400, 2});
  const std::string whole = test::read_bytes(writer.close());
  input_error([&] { ArrayFile::open(folder_.write("cut.h5", whole.substr(0, whole.size() / 2))); });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

class LoadShard : public Dataset {
 protected:
  DataShard load(const DatasetSpec& spec, int ranks = 1, int rank = 0) const {
    return load_shard(*ArrayFile::open(spec.path), spec, ranks, rank);
  }
  std::string error_of(const DatasetSpec& spec, int ranks = 1, int rank = 0) const {
    return input_error([&] { load(spec, ranks, rank); });
  }
};

TEST_F(LoadShard, ShardsAreTheRowsOnce) {
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {7, 2});
  writer.add("y", H5T_STD_I64LE, H5T_NATIVE_INT64, {7}, std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6});
  const DatasetSpec spec{writer.close(), {"x"}, "y", 0};
  for (int ranks : {1, 2, 3, 10}) {
    std::vector<at::Tensor> x;
    std::vector<at::Tensor> y;
    for (int rank = 0; rank < ranks; ++rank) {
      const DataShard shard = load(spec, ranks, rank);
      EXPECT_EQ(shard.global_rows, 7);
      EXPECT_EQ(shard.target.size(0), shard.rows.size());
      x.push_back(shard.inputs.at(0));
      y.push_back(shard.target);
    }
    EXPECT_TRUE(at::cat(x).equal(at::arange(14, at::kDouble).view({7, 2})));
    EXPECT_TRUE(at::cat(y).equal(at::arange(7, at::kLong)));
  }
  EXPECT_EQ(load(spec, 10, 9).inputs[0].sizes(), (at::IntArrayRef{0, 2}));  // an empty shard keeps its other dimensions
  EXPECT_FALSE(load({spec.path, {"x"}, "", 0}).target.defined());
}

TEST_F(LoadShard, RowsAlongAnotherDimension) {
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {2, 5, 3});
  writer.add_doubles("y", {5});
  const auto hdf5_path = writer.close();
  // The same array as safetensors.
  std::string data(30 * sizeof(double), ' ');
  for (int i = 0; i < 30; ++i) {
    const double value = i;
    std::memcpy(data.data() + static_cast<std::size_t>(i) * sizeof value, &value, sizeof value);
  }
  const std::string header = R"({"x":{"dtype":"F64","shape":[2,5,3],"data_offsets":[0,240]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  const auto path = folder_.write("d.safetensors", bytes + header + data);
  const at::Tensor whole = at::arange(30, at::kDouble).view({2, 5, 3}).movedim(1, 0);
  for (const auto& from : {hdf5_path, path}) {
    DatasetSpec spec{from, {"x"}, "", 0};
    spec.input_dims = {1};
    EXPECT_EQ(count_rows(*ArrayFile::open(from), spec), 5);
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < 3; ++rank) parts.push_back(load(spec, 3, rank).inputs[0]);
    EXPECT_TRUE(at::cat(parts).equal(whole)) << from;
    const std::vector<std::int64_t> rows{4, 0, 1};
    EXPECT_TRUE(load_rows(*ArrayFile::open(from), spec, rows).inputs[0].equal(whole.index_select(0, at::tensor(rows))));
    spec.input_dims = {3};
    EXPECT_CONTAINS(error_of(spec), "no dimension 3");
  }
  DatasetSpec both{hdf5_path, {"x"}, "y", 0};
  EXPECT_CONTAINS(error_of(both), "has 5 rows, but 'x' has 2");
  both.input_dims = {1};
  EXPECT_EQ(load(both).target.size(0), 5);
}

TEST_F(LoadShard, WholeUnitsOnly) {
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {10});
  DatasetSpec spec{writer.close(), {"x"}, "", 0};
  spec.unit_rows = 4;
  EXPECT_CONTAINS(error_of(spec), "10 rows are no whole number of units of 4");
  spec.samples = 8;
  EXPECT_TRUE(load(spec, 2, 1).inputs[0].equal(at::tensor({4.0, 5.0, 6.0, 7.0}, at::kDouble)));
}

// Among many rows that are alike, the few that differ are found: a short one, a class of its own.
TEST_F(LoadShard, TellingUnitsDifferAsTheDataDo) {
  constexpr hsize_t kRows = 5000;
  std::vector<std::int64_t> mask(kRows * 6, 1), label(kRows, 3);
  for (std::size_t t = 2; t < 6; ++t) mask[4321 * 6 + t] = 0;
  label[77] = -100;
  label[4000] = 9;
  Writer writer(at("d.h5"));
  writer.add("mask", H5T_STD_I64LE, H5T_NATIVE_INT64, {kRows, 6}, mask);
  writer.add("label", H5T_STD_I64LE, H5T_NATIVE_INT64, {kRows}, label);
  DatasetSpec spec{writer.close(), {"mask"}, "label", 0};
  const auto file = ArrayFile::open(spec.path);
  const std::vector<std::int64_t> units = diverse_units(*file, spec, 8);
  EXPECT_EQ(units.size(), 8U);
  for (const std::int64_t row : {77, 4000, 4321}) EXPECT_TRUE(std::ranges::count(units, row) == 1) << row;
  spec.unit_rows = 10;
  const std::vector<std::int64_t> tens = diverse_units(*file, spec, 4);
  for (const std::int64_t unit : {7, 432}) EXPECT_TRUE(std::ranges::count(tens, unit) == 1) << unit;
}

TEST_F(LoadShard, FirstSamples) {
  Writer writer(at("d.h5"));
  writer.add_doubles("x", {7});
  const auto path = writer.close();
  const DataShard shard = load({path, {"x"}, "", 5}, 2, 1);
  EXPECT_EQ(shard.global_rows, 5);
  EXPECT_TRUE(shard.inputs[0].equal(at::tensor({3.0, 4.0}, at::kDouble)));
  EXPECT_CONTAINS(error_of({path, {"x"}, "", 8}), "has 7 rows, fewer than the 8 samples");
  EXPECT_THROW(load({path, {"x"}, "", -1}), UsageError);
}

TEST_F(LoadShard, Refuses) {
  Writer writer(at("d.h5"));
  writer.add_doubles("input_ids", {7, 2});
  writer.add_doubles("other", {6});
  writer.add_doubles("none", {0, 3}, {0.0});
  writer.add_doubles("scalar", {});
  const auto path = writer.close();
  EXPECT_CONTAINS(error_of({path, {"input_id"}, "", 0}), "did you mean 'input_ids'?");
  EXPECT_CONTAINS(error_of({path, {"input_ids"}, "other", 0}), "'other' in");
  EXPECT_CONTAINS(error_of({path, {"input_ids"}, "other", 0}), "has 6 rows, but 'input_ids' has 7");
  EXPECT_CONTAINS(error_of({path, {"none"}, "", 0}), "has zero rows");
  EXPECT_CONTAINS(error_of({path, {"input_ids"}, "scalar", 0}), "'scalar' in");
  EXPECT_CONTAINS(error_of({path, {"scalar"}, "", 0}), "is a scalar");
  EXPECT_CONTAINS(error_of({path, {}, "", 0}), "no array");
}

TEST_F(LoadShard, NonFiniteValuesAreFoundByTheRankThatHoldsThem) {
  Writer writer(at("d.h5"));
  std::vector<double> values(14, 1.0);
  values[9] = std::nan("");  // row 4
  writer.add_doubles("x", {7, 2}, values);
  values[9] = -std::numeric_limits<double>::infinity();
  writer.add_doubles("z", {7, 2}, values);
  const auto path = writer.close();
  EXPECT_CONTAINS(error_of({path, {"x"}, "", 0}), "array 'x' in");
  EXPECT_CONTAINS(error_of({path, {"x"}, "", 0}), "holds NaN in row 4");
  EXPECT_CONTAINS(error_of({path, {"x"}, "", 0}, 2, 1), "holds NaN in row 4");
  EXPECT_CONTAINS(error_of({path, {"z"}, "", 0}), "holds an infinite value in row 4");
  EXPECT_NO_THROW(load({path, {"x"}, "", 0}, 2, 0));
  EXPECT_NO_THROW(load({path, {"x"}, "", 4}));
}

// Truncations of an HDF5 file end in an InputError or a shorter but sound file. (Arbitrary mutations would test the
// HDF5 library itself.)
TEST_F(LoadShard, TruncatedFiles) {
  Writer writer(at("d.h5"));
  writer.add_doubles("g/x", {7, 2});
  const std::string whole = test::read_bytes(writer.close());
  for (std::size_t size = 0; size < whole.size(); size += 13) {
    const auto path = folder_.write("cut.h5", whole.substr(0, size));
    EXPECT_NE(error_of({path, {"g/x"}, "", 0}), "") << size;
  }
}

}  // namespace
}  // namespace hesspect::dataset_test

#include "hesspect/io/vectors_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <type_traits>

#include "hesspect/core/errors.h"
#include "hesspect/core/safetensors.h"

namespace hesspect::vectors_file_test {
namespace {

namespace fs = std::filesystem;

/// A folder of its own, removed at the end.
class VectorsFileTest : public ::testing::TestWithParam<const char*> {
 protected:
  VectorsFileTest() {
    std::string name = (fs::temp_directory_path() / "hesspect_vec_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    path_ = folder_ / (std::string("v") + GetParam());
  }
  ~VectorsFileTest() override { fs::remove_all(folder_); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_, path_;
};

/// A matrix, a vector, a scalar and an empty one, in another order than in the flat vector of 11.
VectorsInfo sample(std::vector<double> values, bool float64) {
  VectorsInfo info;
  info.quantity = "eigenvectors of the Hessian";
  info.values = std::move(values);
  info.parts = {
      {"layers.0.bias", {4}, 6, 4}, {"layers.0.weight", {2, 3}, 0, 6}, {"scale", {}, 10, 1}, {"none", {0, 5}, 11, 0}};
  info.float64 = float64;
  info.run_id = "5eed";
  return info;
}

/// Entry j of vector i; a third is no number of float32.
double entry(std::int64_t i, std::int64_t j) { return static_cast<double>(100 * i + j) + 1.0 / 3; }

template <class T>
std::vector<T> vector_of(std::int64_t i) {
  std::vector<T> flat;
  for (std::int64_t j = 0; j < 11; ++j) flat.push_back(static_cast<T>(entry(i, j)));
  return flat;
}

template <class T>
void write_all(const fs::path& path, const VectorsInfo& info) {
  VectorsFile file(path, info);
  for (std::int64_t i = static_cast<std::int64_t>(info.values.size()); i-- > 0;)  // any order
    file.write(i, std::span<const T>(vector_of<T>(i)));
  file.commit();
}

/// What the file's entries must be, read with the room's own reader of safetensors.
template <class Stored, class Given>
void expect_safetensors(const fs::path& path, const VectorsInfo& info) {
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("quantity"), info.quantity);
  EXPECT_EQ(file.metadata().at("run_id"), "5eed");
  ASSERT_EQ(file.entries().size(), info.parts.size());
  const auto k = static_cast<std::int64_t>(info.values.size());
  for (const auto& part : info.parts) {
    const SafetensorsEntry* tensor = file.find(part.name);
    ASSERT_NE(tensor, nullptr) << part.name;
    std::vector<std::int64_t> shape{k};
    shape.insert(shape.end(), part.shape.begin(), part.shape.end());
    EXPECT_EQ(tensor->shape, shape);
    std::vector<Stored> expected, stored(tensor->bytes / sizeof(Stored));
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = part.offset; j < part.offset + part.size; ++j)
        expected.push_back(static_cast<Stored>(static_cast<Given>(entry(i, j))));
    if (!stored.empty()) std::memcpy(stored.data(), tensor->data, tensor->bytes);
    EXPECT_EQ(stored, expected) << part.name;
  }
}

class SafetensorsVectors : public VectorsFileTest {};

TEST_P(SafetensorsVectors, EveryTypeIsReadBack) {
  const VectorsInfo narrow = sample({3, 2, -1}, false), wide = sample({3, 2, -1}, true);
  write_all<float>(path_, narrow);
  expect_safetensors<float, float>(path_, narrow);
  write_all<double>(path_, narrow);
  expect_safetensors<float, double>(path_, narrow);
  write_all<double>(path_, wide);
  expect_safetensors<double, double>(path_, wide);
  write_all<float>(path_, wide);
  expect_safetensors<double, float>(path_, wide);
  const VectorsInfo one = sample({7}, true);
  write_all<double>(path_, one);
  expect_safetensors<double, double>(path_, one);
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata().at("values"), "[7.0]");
  EXPECT_EQ(file.find("scale")->type, ElementType::kF64);
}

/// A table of which the flat vector holds three rows of six, and a unit vector of an entry that it does not hold.
TEST_P(SafetensorsVectors, RowsThatAreNotHeldAreZero) {
  for (const bool float64 : {false, true}) {
    VectorsInfo info;
    info.values = {2, 0, 1};
    info.float64 = float64;
    info.parts = {
        {"bias", {2}, 6, 2},
        {"table", {6, 2}, 0, 6, std::make_shared<const std::vector<std::int64_t>>(std::vector<std::int64_t>{1, 2, 4})}};
    VectorsFile file(path_, info);
    const std::vector<double> first = {1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<float> last = {10, 20, 30, 40, 50, 60, 70, 80};
    file.write(2, std::span<const float>(last));
    file.write_unit(1, 2 + 7);  // counted over the parts: entry 7 of the table
    file.write(0, std::span<const double>(first));
    file.commit();
    const SafetensorsFile read(path_);
    const auto entries = [&](const char* name, std::size_t count) {
      const SafetensorsEntry* tensor = read.find(name);
      std::vector<double> values(count);
      for (std::size_t i = 0; i < count; ++i)
        values[i] = float64 ? static_cast<const double*>(static_cast<const void*>(tensor->data))[i]
                            : static_cast<double>(static_cast<const float*>(static_cast<const void*>(tensor->data))[i]);
      return values;
    };
    EXPECT_EQ(entries("bias", 6), (std::vector<double>{7, 8, 0, 0, 70, 80}));
    EXPECT_EQ(entries("table", 36), (std::vector<double>{0, 0, 1,  2,  3,  4,  0, 0, 5,  6,  0, 0,  //
                                                         0, 0, 0,  0,  0,  0,  0, 1, 0,  0,  0, 0,  //
                                                         0, 0, 10, 20, 30, 40, 0, 0, 50, 60, 0, 0}));
  }
}

/// As Python sees it: h5py, or the safetensors package.
TEST_P(VectorsFileTest, OpensInPython) {
  const char* python = std::getenv("HESSPECT_PYTHON");
  const char* source = std::getenv("HESSPECT_SOURCE");
  if (python == nullptr || source == nullptr) GTEST_SKIP() << "HESSPECT_PYTHON and HESSPECT_SOURCE are not set";
  for (const bool float64 : {false, true})
    for (const std::vector<double>& values : {std::vector<double>{3, 2, -1}, {7}}) {
      write_all<double>(path_, sample(values, float64));
      const std::string command = std::string(python) + " " + source + "/tests/io/check_vectors.py " + path_.string() +
                                  " " + std::to_string(values.size()) + (float64 ? " float64" : " float32");
      EXPECT_EQ(std::system(command.c_str()), 0);
    }
}

TEST_P(VectorsFileTest, NothingIsThereBeforeTheCommit) {
  std::ofstream(path_) << "earlier";
  {
    VectorsFile file(path_, sample({1, 2}, false));
    file.write(1, vector_of<float>(1));
    EXPECT_EQ(files(), 2u);
    EXPECT_THROW(file.commit(), Error);  // vector 0 is missing
  }
  EXPECT_EQ(files(), 1u);
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "earlier");
}

/// A run that found no eigenvalue.
TEST_P(VectorsFileTest, NoVectorsAreAFileToo) {
  VectorsFile file(path_, sample({}, false));
  file.commit();
  EXPECT_TRUE(fs::is_regular_file(path_));
  if (std::string(GetParam()) == ".safetensors") {
    EXPECT_EQ(SafetensorsFile(path_).find("scale")->shape, std::vector<std::int64_t>{0});
  }
}

TEST_P(VectorsFileTest, LinksAreFollowed) {
  fs::create_symlink("target", path_);
  write_all<float>(path_, sample({1}, false));
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_GT(fs::file_size(folder_ / "target"), 44u);
  EXPECT_EQ(files(), 2u);
}

/// A disk that is full: a limit on file sizes makes writing fail, in the layout or in the entries.
TEST_P(VectorsFileTest, FullDiskLeavesNothingBehind) {
  VectorsInfo info = sample({1, 2}, true);
  info.parts.push_back({"big", {100'000}, 0, 100'000});
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::string error;
  const std::vector<double> flat(100'000, 1.0);
  for (const rlim_t limit : {100u, 5000u, 900'000u, 1'600'300u}) {
    rlimit small = before;
    small.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &small);
    error.clear();
    try {
      VectorsFile file(path_, info);
      file.write(0, flat);
      file.write(1, flat);
      file.commit();
    } catch (const InputError& e) {
      error = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(error, "cannot write '" + path_.string() + "': File too large") << limit;
    EXPECT_EQ(files(), 0u);
  }
}

TEST_P(VectorsFileTest, FoldersThatCannotBeWritten) {
  EXPECT_THROW(VectorsFile(folder_ / "none" / path_.filename(), sample({1}, false)), InputError);
  EXPECT_THROW(VectorsFile("/proc" / path_.filename(), sample({1}, false)), InputError);
}

TEST_P(VectorsFileTest, SlipsOfTheCallerAreInternalErrors) {
  VectorsInfo wrong = sample({1}, false);
  wrong.parts[0].size = 5;
  EXPECT_THROW(VectorsFile(path_, wrong), Error);
  VectorsFile file(path_, sample({1}, false));
  EXPECT_THROW(file.write(1, vector_of<float>(1)), Error);
  EXPECT_THROW(file.write(0, std::vector<float>(10)), Error);
}

INSTANTIATE_TEST_SUITE_P(Formats, VectorsFileTest, ::testing::Values(".h5", ".hdf5", ".safetensors"),
                         [](const auto& format) { return std::string(format.param).substr(1); });

INSTANTIATE_TEST_SUITE_P(Formats, SafetensorsVectors, ::testing::Values(".safetensors"));

TEST(VectorsFileNames, Suffixes) {
  for (const char* name : {"a.h5", "b/c.hdf5", "a.b.safetensors"}) EXPECT_TRUE(VectorsFile::is_known(name)) << name;
  for (const char* name : {"a", "h5", ".h5", "a.pt", "a.h5/", "a.H5"})
    EXPECT_FALSE(VectorsFile::is_known(name)) << name;
  EXPECT_THROW(VectorsFile("a.npz", sample({1}, false)), UsageError);
}

}  // namespace
}  // namespace hesspect::vectors_file_test

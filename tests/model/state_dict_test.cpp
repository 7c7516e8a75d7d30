#include "hesspect/model/state_dict.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>

#include "core/input_error.h"
#include "core/mutation.h"
#include "core/temporary_folder.h"
#include "core/zip_writer.h"
#include "hesspect/data/dataset.h"

namespace hesspect::state_dict_test {
namespace {

namespace fs = std::filesystem;
using test::input_error;
using test::little_endian;
using test::zip_of;

// Files that PyTorch wrote.

fs::path fixtures() {
  const char* folder = std::getenv("HESSPECT_FIXTURES");
  return folder != nullptr ? fs::path(folder) : fs::path();
}

class Fixtures : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(folder_ / "expected.h5")) GTEST_SKIP() << "no fixtures in " << folder_;
  }

  /// Name to tensor, as PyTorch had it.
  std::map<std::string, at::Tensor> expected(const std::string& group = "values") const {
    std::map<std::string, at::Tensor> values;
    const auto file = ArrayFile::open(folder_ / "expected.h5");
    for (const ArrayInfo& array : file->arrays()) {
      if (array.name.rfind(group + "/", 0) == 0) {
        values[array.name.substr(group.size() + 1)] = file->read_rows(array.name, 0, array.shape[0]);
      }
    }
    return values;
  }

  std::vector<OverlayTarget> targets(at::ScalarType dtype = at::kFloat) const {
    std::vector<OverlayTarget> all;
    for (const auto& [name, value] : expected()) all.push_back({name, {}, at::full(value.sizes(), 7.0, dtype), true});
    return all;
  }

  void check_overlay(const std::string& file, const std::string& group = "values", const std::string& stripped = "",
                     const std::string& key = "") const {
    const auto all = targets();
    const OverlayReport report = overlay(read_state_dict(folder_ / file, key), all);
    const auto values = expected(group);
    for (const OverlayTarget& target : all) {
      EXPECT_TRUE(target.tensor.to(at::kDouble).equal(values.at(target.name))) << file << " " << target.name;
    }
    EXPECT_EQ(report.widened.size(), group == "values" ? 0U : all.size());
    EXPECT_EQ(report.changes.at(0), (NameChange{stripped, "", "", false})) << file;
  }

  std::string error_of(const std::string& file) const {
    return input_error([&] { overlay(read_state_dict(folder_ / file), targets()); });
  }

  fs::path folder_ = fixtures() / "ckpt";
};

TEST_F(Fixtures, EveryFormGivesTheSameWeights) {
  for (const char* file :
       {"full.safetensors", "f64.safetensors", "sharded/model.safetensors.index.json", "state.pt", "nested_model.pth",
        "nested_state_dict.pt", "ordered.pt", "parameter_objects.pt", "attributes.pt", "unknown_dict.pt", "evil.pt"}) {
    check_overlay(file);
  }
  check_overlay("bf16.safetensors", "values_bf16");
  check_overlay("fp16.pt", "values_fp16");
}

TEST_F(Fixtures, ComplexNumbers) {
  const StateDict state_dict = read_state_dict(folder_ / "complex.pt");
  ASSERT_EQ(state_dict.tensors.size(), 2U);
  EXPECT_EQ(state_dict.tensors[0].dtype, at::kComplexFloat);
  EXPECT_EQ(state_dict.tensors[1].dtype, at::kComplexDouble);
  for (const StateDictTensor& one : state_dict.tensors) {
    EXPECT_EQ(one.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_TRUE(at::view_as_real(one.tensor).reshape({-1}).to(at::kDouble).equal(at::arange(12, at::kDouble)));
  }
}

TEST_F(Fixtures, WhatIsToldOfAStateDict) {
  const StateDict sharded = read_state_dict(folder_ / "sharded/model.safetensors.index.json");
  EXPECT_EQ(sharded.format, "safetensors index");
  EXPECT_EQ(sharded.files.size(), 3U);
  const StateDict nested = read_state_dict(folder_ / "nested_state_dict.pt");
  EXPECT_EQ(nested.format, "PyTorch state dict");
  EXPECT_EQ(nested.key, "state_dict");
  EXPECT_EQ(nested.skipped, (std::vector<std::string>{"optimizer", "lr", "done"}));
  EXPECT_EQ(read_state_dict(folder_ / "nested_model.pth").key, "model");
  EXPECT_EQ(read_state_dict(folder_ / "state.pt").key, "");
  EXPECT_NO_THROW(overlay(read_state_dict(folder_ / "f64.safetensors"), targets()));
  EXPECT_NO_THROW(overlay(read_state_dict(folder_ / "f64.safetensors"), targets(at::kDouble)));
}

TEST_F(Fixtures, WhatDoesNotFitIsListed) {
  EXPECT_CONTAINS(error_of("missing.safetensors"), "does not fit the program; 1 missing (layers.1.bias)");
  EXPECT_CONTAINS(error_of("extra.safetensors"), "1 extra (layers.9.weight)");
  EXPECT_CONTAINS(error_of("misshapen.safetensors"), "1 misshapen (layers.1.bias: [3] in the state dict, [");
  EXPECT_CONTAINS(error_of("nan.safetensors"), "tensor 'layers.0.weight' holds NaN at index [1, 2]");
}

TEST_F(Fixtures, NothingIsWrittenWhenSomethingIsWrong) {
  for (const char* file : {"missing.safetensors", "extra.safetensors", "misshapen.safetensors", "nan.safetensors"}) {
    const auto all = targets();
    input_error([&] { overlay(read_state_dict(folder_ / file), all); });
    for (const OverlayTarget& target : all) EXPECT_TRUE(target.tensor.eq(7.0).all().item<bool>());
  }
}

// A script's arguments, an optimizer, NumPy scalars and the like lie beside the state dict: they were all refused.
TEST_F(Fixtures, TrainingCheckpoints) {
  for (const char* file : {"training2.pt", "training4.pt", "training5.pt"}) {
    check_overlay(file, "values", "module.");
    const StateDict state_dict = read_state_dict(folder_ / file);
    EXPECT_EQ(state_dict.key, "state_dict");
    EXPECT_TRUE(state_dict.other_sets.empty());
    EXPECT_EQ(state_dict.skipped.size(), 24U);
  }
}

TEST_F(Fixtures, APickleThatCallsAFunctionIsNotRun) {
  fs::remove(folder_ / "EVIL_RAN");
  const std::string unrun = "(nothing in the file was executed)";
  EXPECT_EQ(read_state_dict(folder_ / "evil.pt").objects,
            (std::vector<std::pair<std::string, std::string>>{{"payload", "posix.system"}}));
  EXPECT_CONTAINS(error_of("evil_state.pt"), "'state_dict' is an object of 'posix.system'");
  EXPECT_CONTAINS(error_of("evil_state.pt"), unrun);
  EXPECT_CONTAINS(error_of("evil_whole.pt"), "holds no state dict, but an object of 'posix.system'");
  EXPECT_CONTAINS(error_of("evil_whole.pt"), unrun);
  EXPECT_CONTAINS(error_of("evil_weight.pt"),
                  "1 missing (layers.1.bias) ('layers.1.bias' is there as an object of 'posix.system'");
  EXPECT_FALSE(fs::exists(folder_ / "EVIL_RAN"));
}

TEST_F(Fixtures, ATensorOfAnUnknownClassIsRefused) {
  EXPECT_CONTAINS(error_of("subclass.pt"), "tensor 'layers.1.bias' is made by 'checkpoints.Scaled'");
}

TEST_F(Fixtures, AKeyChoosesAmongSeveralSets) {
  EXPECT_EQ(read_state_dict(folder_ / "two_sets.pt").other_sets, std::vector<std::string>{"swa"});
  check_overlay("two_sets.pt", "values", "module.", "swa.model");
  check_overlay("two_sets.pt", "values", "module.", "swa");
  const auto refusal = [&](const std::string& file, const std::string& key) {
    return input_error([&] { read_state_dict(folder_ / file, key); });
  };
  EXPECT_CONTAINS(refusal("two_sets.pt", "swaa"), "nothing under --weights-key 'swaa' (did you mean 'swa'?)");
  EXPECT_CONTAINS(refusal("two_sets.pt", "swa.net"), "there are model");
  EXPECT_CONTAINS(refusal("two_sets.pt", "epoch"), "holds no state dict under 'epoch', but another kind of value");
  EXPECT_CONTAINS(refusal("full.safetensors", "swa"), "has no keys for --weights-key 'swa'");
}

// A folder stands for the one set of weights in it.
TEST_F(Fixtures, Folders) {
  const test::TemporaryFolder folder;
  const auto check = [&] { check_overlay(folder.path().string()); };
  const auto refusal = [&] { return input_error([&] { read_state_dict(folder.path()); }); };
  const auto copy = [&](const std::string& from, const std::string& to) {
    fs::copy_file(folder_ / from, folder.path() / to);
  };
  EXPECT_CONTAINS(refusal(), "is a folder without weights");
  folder.write("optimizer.pt", "no weights");
  folder.write("config.json", "{}");
  EXPECT_CONTAINS(refusal(), "is a folder without weights");
  copy("state.pt", "pytorch_model.bin");
  check();
  copy("full.safetensors", "model.safetensors");  // the newer form of the same
  fs::remove(folder.path() / "pytorch_model.bin");
  folder.write("pytorch_model.bin", "not read");
  check();
  copy("bf16.safetensors", "other.safetensors");
  EXPECT_CONTAINS(refusal(), "more than one set of weights, or a part of one: model.safetensors, other.safetensors");
  fs::remove(folder.path() / "model.safetensors");
  fs::remove(folder.path() / "other.safetensors");
  copy("sharded/model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors");
  EXPECT_CONTAINS(refusal(), "a part of one");
  copy("sharded/model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors");
  check();
  EXPECT_EQ(read_state_dict(folder.path()).files.size(), 2U);
  copy("sharded/model-00002-of-00002.safetensors", "model-00003-of-00003.safetensors");
  EXPECT_CONTAINS(refusal(), "a part of one");
  fs::remove(folder.path() / "model-00003-of-00003.safetensors");
  copy("sharded/model.safetensors.index.json", "model.safetensors.index.json");
  check();
  EXPECT_EQ(read_state_dict(folder.path()).format, "safetensors index");
  copy("full.safetensors", "model.safetensors");
  EXPECT_CONTAINS(refusal(), "more than one set of weights");
}

TEST_F(Fixtures, OtherKindsOfFile) {
  EXPECT_CONTAINS(input_error([&] { read_state_dict(folder_ / "legacy.pt"); }), "legacy form");
  EXPECT_CONTAINS(input_error([&] { read_state_dict(fixtures() / "mlp_ce.pt2"); }), "is an exported program (.pt2)");
  EXPECT_CONTAINS(input_error([&] { read_state_dict(folder_ / "expected.h5"); }), "is no state dict");
  EXPECT_CONTAINS(input_error([&] { read_state_dict(folder_ / "none.pt"); }), "no such file");
  EXPECT_CONTAINS(input_error([&] { read_state_dict(folder_); }), "more than one set of weights");
}

// Every truncation, and mutations, of what PyTorch wrote: success or an InputError, never a crash.
void attempt(const fs::path& path) {
  try {
    const StateDict state_dict = read_state_dict(path);
    double sum = 0;
    for (const StateDictTensor& tensor : state_dict.tensors) {
      // A zero stride may blow a few bytes up to any size; reading as much is the caller's choice.
      if (tensor.tensor.numel() < 100'000)
        sum += at::nan_to_num(tensor.tensor.to(at::kDouble), 0, 0, 0).sum().item<double>();
    }
    EXPECT_FALSE(std::isnan(sum));
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

TEST_F(Fixtures, FuzzPyTorchArchives) {
  const test::TemporaryFolder folder;
  for (const char* file : {"ordered.pt", "nested_state_dict.pt", "training2.pt"}) {
    const std::string whole = test::read_bytes(folder_ / file);
    for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 10'000) {
      input_error([&] { read_state_dict(folder.write("m.pt", whole.substr(0, size))); });
    }
    for (std::uint32_t i = 0; i < 2000; ++i) attempt(folder.write("m.pt", test::mutate(whole, i)));
    // The pickle alone, mutated within a sound archive: most mutations of the whole hit padding or data.
    const std::size_t from = whole.find("\x80\x02");
    const std::size_t size = whole.find("PK\x07\x08", from) - from;
    for (std::uint32_t i = 0; i < 4000; ++i) {
      std::string pickle = test::mutate(whole.substr(from, size), i);
      pickle.resize(size, '.');
      attempt(folder.write("m.pt", whole.substr(0, from) + pickle + whole.substr(from + size)));
    }
  }
}

TEST_F(Fixtures, FuzzShardedIndex) {
  const test::TemporaryFolder folder;
  for (const auto& entry : fs::directory_iterator(folder_ / "sharded")) {
    fs::copy(entry.path(), folder.path() / entry.path().filename());
  }
  const std::string whole = test::read_bytes(folder_ / "sharded/model.safetensors.index.json");
  for (std::size_t size = 0; size + 1 < whole.size(); ++size) {
    input_error([&] { read_state_dict(folder.write("i.json", whole.substr(0, size))); });
  }
  for (std::uint32_t i = 0; i < 3000; ++i) attempt(folder.write("i.json", test::mutate(whole, i)));
}

// Archives made by hand: what PyTorch would not write.

/// Pieces of a protocol-2 pickle.
std::string text(const std::string& s) { return "X" + little_endian(s.size(), 4) + s; }
std::string integer(std::int64_t n) { return "\x8a\x08" + little_endian(static_cast<std::uint64_t>(n), 8); }
std::string tuple(const std::vector<std::int64_t>& numbers) {
  std::string out = "(";
  for (std::int64_t n : numbers) out += integer(n);
  return out + "t";
}
std::string storage(const std::string& type, const std::string& key, std::int64_t numel) {
  return "(" + text("storage") + "ctorch\n" + type + "\n" + text(key) + text("cpu") + integer(numel) + "tQ";
}
std::string tensor(const std::string& from, std::int64_t offset, const std::vector<std::int64_t>& sizes,
                   const std::vector<std::int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + from + integer(offset) + tuple(sizes) + tuple(strides) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += text(key) + value;
  return out + "u";
}
std::string pickle(const std::string& body) { return "\x80\x02" + body + "."; }

const std::string kFourFloats("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16);  // 1 2 3 4

class HandMade : public ::testing::Test {
 protected:
  fs::path archive(const std::string& body, const std::vector<std::pair<std::string, std::string>>& more = {}) const {
    std::vector<std::pair<std::string, std::string>> files{{"a/data.pkl", pickle(body)}, {"a/data/0", kFourFloats}};
    files.insert(files.end(), more.begin(), more.end());
    return folder_.write("a.pt", zip_of(files, false));
  }
  StateDict read(const std::string& body) const { return read_state_dict(archive(body)); }
  std::string error_of(const std::string& body) const {
    return input_error([&] { read(body); });
  }
  StateDict read_tensor(std::int64_t offset, const std::vector<std::int64_t>& sizes,
                        const std::vector<std::int64_t>& strides, std::int64_t numel = 4) const {
    return read(dict({{"w", tensor(storage("FloatStorage", "0", numel), offset, sizes, strides)}}));
  }
  std::string tensor_error(std::int64_t offset, const std::vector<std::int64_t>& sizes,
                           const std::vector<std::int64_t>& strides, std::int64_t numel = 4) const {
    return input_error([&] { read_tensor(offset, sizes, strides, numel); });
  }
  test::TemporaryFolder folder_;
};

at::Tensor floats(std::vector<double> values) { return at::tensor(values, at::kDouble).to(at::kFloat); }

TEST_F(HandMade, ViewsOfAStorage) {
  EXPECT_TRUE(read_tensor(0, {2, 2}, {2, 1}).tensors[0].tensor.equal(floats({1, 2, 3, 4}).view({2, 2})));
  EXPECT_TRUE(read_tensor(0, {2, 2}, {1, 2}).tensors[0].tensor.equal(floats({1, 3, 2, 4}).view({2, 2})));
  EXPECT_TRUE(read_tensor(1, {3}, {0}).tensors[0].tensor.equal(floats({2, 2, 2})));
  EXPECT_TRUE(read_tensor(3, {}, {}).tensors[0].tensor.equal(floats({4}).squeeze()));
  EXPECT_TRUE(read_tensor(3, {1, 1}, {1LL << 62, 1LL << 62}).tensors[0].tensor.equal(floats({4}).view({1, 1})));
  EXPECT_EQ(read_tensor(9, {0, 5}, {5, 1}).tensors[0].tensor.numel(), 0);
}

TEST_F(HandMade, ViewsThatLeaveTheirStorage) {
  EXPECT_CONTAINS(tensor_error(0, {5}, {1}), "reaches beyond the 4 elements of its storage");
  EXPECT_CONTAINS(tensor_error(4, {1}, {1}), "reaches beyond");
  EXPECT_CONTAINS(tensor_error(1, {2, 2}, {2, 1}), "reaches beyond");
  EXPECT_CONTAINS(tensor_error(0, {2}, {std::numeric_limits<std::int64_t>::max()}), "reaches beyond");
  EXPECT_CONTAINS(tensor_error(0, {1LL << 32, 1LL << 32}, {1LL << 32, 1}), "reaches beyond");
  EXPECT_CONTAINS(tensor_error(0, {1LL << 32, 1LL << 32}, {0, 0}), "reaches beyond");  // 2^64 elements
  EXPECT_CONTAINS(tensor_error(-1, {1}, {1}), "offset is not whole");
  EXPECT_CONTAINS(tensor_error(3, {2}, {-1}), "stride is not whole");
  EXPECT_CONTAINS(tensor_error(0, {-1}, {1}), "size is not whole");
  EXPECT_CONTAINS(tensor_error(0, {2}, {1, 1}), "of different length");
  EXPECT_CONTAINS(tensor_error(0, std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1)), "65 dimensions");
  EXPECT_CONTAINS(tensor_error(0, {5}, {1}, 5), "should hold 5 elements of float32, but has 16 bytes");
  EXPECT_CONTAINS(tensor_error(0, {5}, {1}, 1LL << 62), "should hold 4611686018427387904 elements");
  EXPECT_CONTAINS(error_of(dict({{"w", tensor(storage("FloatStorage", "7", 4), 0, {4}, {1})}})),
                  "lacks its storage 'a/data/7'");
  EXPECT_CONTAINS(error_of(dict({{"w", tensor(storage("FloatStorage", "../x", 4), 0, {4}, {1})}})),
                  "lacks its storage");
}

// Storages need not be aligned in archives that others than PyTorch wrote: each offset of the record must work.
TEST_F(HandMade, StoragesThatAreNotAligned) {
  for (int padding = 0; padding < 8; ++padding) {
    const std::string body = dict({{"w", tensor(storage("FloatStorage", "0", 4), 0, {4}, {1})},
                                   {"v", tensor(storage("DoubleStorage", "0", 2), 0, {1}, {1})}});
    const auto path = folder_.write("a.pt", zip_of({{"a/data.pkl", pickle(body)},
                                                    {"a/pad", std::string(static_cast<std::size_t>(padding), 'x')},
                                                    {"a/data/0", kFourFloats}},
                                                   true));
    const StateDict state_dict = read_state_dict(path);
    EXPECT_TRUE(state_dict.tensors[0].tensor.equal(floats({1, 2, 3, 4})));
    EXPECT_EQ(state_dict.tensors[1].dtype, at::kDouble);
  }
}

TEST_F(HandMade, GlobalsOutsideTheList) {
  const auto refused = [&](const std::string& global, const std::string& name) {
    const std::string message = error_of(global + "(" + text("true") + "tR");
    EXPECT_CONTAINS(message, "an object of '" + name + "'");
    EXPECT_CONTAINS(message, "nothing in the file was executed");
  };
  refused("cos\nsystem\n", "os.system");
  refused(text("builtins") + text("eval") + "\x93", "builtins.eval");  // STACK_GLOBAL
  refused("ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes");
  refused("ctorch\nload\n", "torch.load");
  refused("c__main__\nMy\x1b[2JModel\n", "__main__.My\\x1b[2JModel");
  refused("ccollections\nOrderedDict.fromkeys\n", "collections.OrderedDict.fromkeys");
  EXPECT_CONTAINS(error_of("(ios\nsystem\n"), "opcode 105");  // INST
  EXPECT_CONTAINS(error_of("\x82\x01"), "opcode 130");        // EXT1
  EXPECT_CONTAINS(error_of(text("storage") + "Q"), "persistent id");
}

// What an unknown global makes keeps its items, and knows whether a tensor went into it on any way.
TEST_F(HandMade, Placeholders) {
  const std::string made = "cmine\nThing\n";
  const std::string w = tensor(storage("FloatStorage", "0", 4), 0, {4}, {1});
  const auto inert = [&](const std::string& value) {
    const StateDict state_dict = read(dict({{"w", w}, {"x", value}}));
    EXPECT_EQ(state_dict.tensors.size(), 1U);
    EXPECT_EQ(state_dict.objects, (std::vector<std::pair<std::string, std::string>>{{"x", "mine.Thing"}}));
  };
  const auto depends = [&](const std::string& value, const std::string& maker = "mine.Thing") {
    EXPECT_CONTAINS(error_of(dict({{"w", w}, {"x", value}})), "tensor 'x' is made by '" + maker + "'");
  };
  inert(made + ")R");
  inert(made + ")\x81");                                                      // NEWOBJ
  inert(made + ")" + dict({{"a", "K\x01"}}) + "\x92");                        // NEWOBJ_EX
  inert(made + ")R" + dict({{"a", "K\x01"}}) + "b");                          // BUILD
  inert(made + ")R(K\x01K\x02" + "e" + "K\x03" + "a");                        // APPENDS, APPEND
  inert(made + ")R)R");                                                       // what it makes is called again
  inert("ccopyreg\n_reconstructor\n(" + made + "c__builtin__\nobject\nNtR");  // told by its class
  inert(made + "(\x8a\x0c" + std::string(12, '\x7f') + "tR");                 // LONG1 beyond 64 bits
  depends(made + "(" + w + "tR");
  depends(made + "(](" + w + "etR");  // in a list
  depends(made + ")}" + text("a") + w + "s\x92");
  depends(made + ")R" + dict({{"a", w}}) + "b");
  depends(made + ")R" + w + "a");
  depends(tensor(storage("QUInt8Storage", "0", 1), 0, {1}, {1}), "torch.QUInt8Storage");
  EXPECT_EQ(read(made + ")R(" + text("w") + w + "u").tensors.size(), 1U);
  EXPECT_EQ(read(dict({{"w", w}, {"a._extra_state", made + "(" + w + "tR"}})).tensors.size(), 1U);
  EXPECT_CONTAINS(error_of(dict({{"model", made + "(" + w + "tR"}})), "'model' is an object of 'mine.Thing'");
  EXPECT_CONTAINS(error_of("(" + text("storage") + made + text("0") + text("cpu") + "K\x01tQ"), "is no storage");
  // An OrderedDict as Python 2 wrote it.
  EXPECT_EQ(read("ccollections\nOrderedDict\n(](](" + text("w") + w + "eetR").tensors.size(), 1U);
  EXPECT_CONTAINS(error_of("ccollections\nOrderedDict\n(](](" + w + "eetR"), "no list of pairs");
  EXPECT_CONTAINS(error_of("NN}\x92"), "no function");
}

TEST_F(HandMade, BrokenPickles) {
  EXPECT_CONTAINS(error_of(""), "values left over");
  EXPECT_CONTAINS(error_of("NN"), "values left over");
  EXPECT_CONTAINS(error_of("(N"), "values left over");
  EXPECT_CONTAINS(error_of("a"), "stack is empty");
  EXPECT_CONTAINS(error_of("u"), "no mark");
  EXPECT_CONTAINS(error_of("(Na"), "stack is empty");  // may not reach below the mark
  EXPECT_CONTAINS(error_of("h\x05"), "recalls a value that it never stored");
  EXPECT_CONTAINS(error_of("X\xff\xff\xff\xff"), "truncated?");
  EXPECT_CONTAINS(error_of("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615 more bytes");
  EXPECT_CONTAINS(error_of("}(Nu"), "key without a value");
  EXPECT_CONTAINS(error_of("N)R"), "no function");
  EXPECT_CONTAINS(error_of("c" + std::string(5000, 'x')), "too long");
  EXPECT_CONTAINS(error_of("N}b"), "state of a plain value");
  EXPECT_CONTAINS(input_error([&] {
                    read_state_dict(folder_.write("a.pt", zip_of({{"a/data.pkl", "(lp0\n."}}, false)));
                  }),
                  "protocol number");
}

TEST_F(HandMade, NestingCostsNoStack) {
  std::string lists(400'000, ']');
  for (int i = 1; i < 400'000; ++i) lists += 'a';
  EXPECT_CONTAINS(error_of(lists), "holds no state dict");
  EXPECT_CONTAINS(error_of(std::string(2'000'000, '(')), "values left over");
  EXPECT_CONTAINS(error_of("]q\0h\0a" + std::string()), "broken");  // the C string ends early: an unknown opcode
  EXPECT_CONTAINS(error_of(std::string("]q\0h\0a", 6)), "holds no state dict");  // a list that holds itself
  EXPECT_CONTAINS(error_of(std::string("}q\0", 3) + text("model") + std::string("h\0s", 3)), "holds no state dict");
}

/// A byte of a pickle made 140 of memory: a file of some megabytes took gigabytes.
TEST_F(HandMade, ValuesTakeTenTimesTheFileAtMost) {
  const std::string many = "(" + std::string(1'000'000, 'N') + "t";
  EXPECT_CONTAINS(error_of(many), "more values than any state dict needs");
  EXPECT_CONTAINS(error_of("(" + std::string(400'000, 'N') + "t"), "holds no state dict");
  // The tensors beside it count.
  const auto path =
      folder_.write("a.pt", zip_of({{"a/data.pkl", pickle(many)}, {"a/data/0", std::string(20'000'000, 'x')}}, false));
  EXPECT_CONTAINS(input_error([&] { read_state_dict(path); }), "holds no state dict");
}

TEST_F(HandMade, WhereTheStateDictLies) {
  const std::string w = tensor(storage("FloatStorage", "0", 4), 0, {4}, {1});
  const std::string inner = dict({{"w", w}});
  EXPECT_EQ(read(dict({{"model", dict({{"state_dict", inner}})}, {"epoch", "K\x03"}})).key, "model.state_dict");
  EXPECT_EQ(read(dict({{"ema", inner}, {"net", inner}})).skipped, std::vector<std::string>{"ema"});
  EXPECT_CONTAINS(error_of(dict({{"model", inner}, {"net", inner}})),
                  "under both 'model' and 'net'; choose one by --weights-key");
  EXPECT_EQ(read_state_dict(archive(dict({{"model", inner}, {"net", inner}})), "net").key, "net");
  EXPECT_EQ(read_state_dict(archive(dict({{"a.b", dict({{"c", inner}})}})), "a.b.c").key, "a.b.c");
  EXPECT_CONTAINS(error_of(dict({{"mine", inner}, {"epoch", "K\x03"}})),
                  "among its keys mine, epoch; choose by --weights-key of mine");
  EXPECT_CONTAINS(error_of("}"), "its dict is empty");
  EXPECT_CONTAINS(error_of(w), "holds no state dict, but another kind of value");
  EXPECT_CONTAINS(error_of(dict({{"w", w}, {"w", w}})), "holds 'w' twice");
  const StateDict mixed = read(dict({{"w", w}, {"lr", "G\x3f\xf0" + std::string(6, '\0')}}) + "K\x05" + w + "s");
  EXPECT_EQ(mixed.tensors.size(), 1U);
  EXPECT_EQ(mixed.skipped, (std::vector<std::string>{"lr", "5"}));
}

TEST_F(HandMade, ArchivesOfOtherKinds) {
  const std::string body = dict({{"w", tensor(storage("FloatStorage", "0", 4), 0, {4}, {1})}});
  EXPECT_CONTAINS(input_error([&] { read_state_dict(archive(body, {{"a/byteorder", "big"}})); }), "byte order 'big'");
  EXPECT_NO_THROW(read_state_dict(archive(body, {{"a/byteorder", "little"}})));
  EXPECT_CONTAINS(input_error([&] { read_state_dict(archive(body, {{"a/constants.pkl", ""}})); }), "TorchScript");
  EXPECT_CONTAINS(input_error([&] {
                    read_state_dict(folder_.write("x.pt", zip_of({{"x.txt", "hello"}}, false)));
                  }),
                  "not one of torch.save");
}

// Sharded state dicts.

std::string safetensors_of(const std::string& header, const std::string& data) {
  return little_endian(header.size(), 8) + header + data;
}

TEST_F(HandMade, IndexesThatDoNotFit) {
  folder_.write("s.safetensors",
                safetensors_of(R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", kFourFloats));
  const auto path_of = [&](const std::string& json) { return folder_.write("i.index.json", json); };
  const auto refusal = [&](const std::string& json) { return input_error([&] { read_state_dict(path_of(json)); }); };
  EXPECT_EQ(read_state_dict(path_of(R"({"weight_map":{"w":"s.safetensors"},"metadata":{"x":[1,{"y":null}]}})"))
                .tensors.size(),
            1U);
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"../s.safetensors"}})"),
                  "'../s.safetensors', which is not within its folder");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"a/../../s"}})"), "not within its folder");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"/etc/passwd"}})"), "not within its folder");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":""}})"), "not within its folder");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"none.safetensors"}})"), "no such file");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"v":"s.safetensors"}})"),
                  "maps tensor 'v' to the shard 's.safetensors', which lacks it");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"i.index.json"}})"), "is an index itself");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":"s.safetensors","w":"s.safetensors"}})"), "'w' stands twice");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":7}})"), "the shard of tensor 'w' is a number");
  EXPECT_CONTAINS(refusal(R"({"weight_map":{"w":{}}})"), "is an object");
  EXPECT_CONTAINS(refusal(R"({"x":{"weight_map":{"w":"s.safetensors"}}})"), "has no 'weight_map'");
  EXPECT_CONTAINS(refusal(R"({"weight_map":)"), "not valid JSON");
  std::string deep = R"({"x":)";
  for (int i = 0; i < 1'000'000; ++i) deep += "[";
  EXPECT_CONTAINS(refusal(deep), "not valid JSON");
}

// Laying over: targets made by hand.

StateDict state_dict_of(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  StateDict state_dict;
  state_dict.files = {"w.pt"};
  for (const auto& [name, value] : tensors) {
    state_dict.tensors.push_back({name, value.scalar_type(), value.sizes().vec(), value});
  }
  return state_dict;
}
OverlayTarget target_of(const std::string& name, const at::Tensor& value, std::vector<std::string> aliases = {},
                        bool required = true) {
  return {name, std::move(aliases), value, required};
}

TEST(Overlay, WritesIntoViewsOfTheFlatVector) {
  const at::Tensor flat = at::zeros({6}).requires_grad_();
  overlay(state_dict_of({{"b", floats({5, 6})}, {"a", floats({1, 2, 3, 4}).view({2, 2}).t()}}),
          {target_of("a", flat.slice(0, 0, 4).view({2, 2})), target_of("b", flat.slice(0, 4, 6))});
  EXPECT_TRUE(flat.detach().equal(floats({1, 3, 2, 4, 5, 6})));
}

TEST(Overlay, WrapperPrefixes) {
  for (const std::string prefix :
       {"module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "student."}) {
    const at::Tensor a = at::zeros({1});
    const at::Tensor b = at::zeros({1});
    const OverlayReport report = overlay(state_dict_of({{prefix + "a", floats({1})}, {prefix + "b", floats({2})}}),
                                         {target_of("a", a), target_of("b", b)});
    EXPECT_EQ(report.changes.at(0).stripped, prefix);
    EXPECT_EQ(b.item<double>(), 2);
  }
  // Kept where the program's own names carry it, or where not all names do.
  const at::Tensor a = at::zeros({1});
  EXPECT_EQ(overlay(state_dict_of({{"module.a", floats({1})}}), {target_of("module.a", a)}).changes.at(0),
            NameChange());
  EXPECT_CONTAINS(input_error([&] {
                    overlay(state_dict_of({{"module.a", floats({1})}, {"b", floats({1})}}), {target_of("a", a)});
                  }),
                  "1 missing (a); 2 extra (module.a, b)");
}

// The module that was written for the export puts a word before every name of the program (`self.lm = model`).
TEST(Overlay, PrefixesOfTheProgram) {
  const auto lay = [](const std::vector<std::string>& program, const std::vector<std::string>& file) {
    std::vector<OverlayTarget> targets;
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const std::string& name : program) targets.push_back(target_of(name, at::zeros({1})));
    for (std::size_t i = 0; i < file.size(); ++i) tensors.emplace_back(file[i], floats({1.0 + static_cast<double>(i)}));
    const NameChange change = overlay(state_dict_of(tensors), targets).changes.at(0);
    for (std::size_t i = 0; i < targets.size(); ++i)
      EXPECT_EQ(targets[i].tensor.item<double>(), 1.0 + static_cast<double>(i));
    return change;
  };
  EXPECT_EQ(lay({"lm.a", "lm.x.b"}, {"a", "x.b"}), (NameChange{"", "lm.", "", false}));
  EXPECT_EQ(lay({"net.base.a", "net.base.x.b"}, {"a", "x.b"}), (NameChange{"", "net.base.", "", false}));
  EXPECT_EQ(lay({"net.base.a", "net.base.x.b"}, {"base.a", "base.x.b"}), (NameChange{"", "net.", "", false}));
  EXPECT_EQ(lay({"lm.a", "lm.x.b"}, {"module.a", "module.x.b"}), (NameChange{"module.", "lm.", "", false}));
  // All but a counter carry it, as AveragedModel's state dict has it.
  EXPECT_EQ(lay({"a", "x.b"}, {"module.a", "module.x.b", "n_averaged"}), (NameChange{"module.", "", "", false}));
  EXPECT_EQ(describe({"module.", "lm.", "", false}), "'module.' taken off its names, 'lm.' put before its names");
  // A tied head that save_pretrained left out.
  const at::Tensor w = at::zeros({1}), v = at::zeros({1});
  overlay(state_dict_of({{"model.emb", floats({1})}, {"model.v", floats({2})}}),
          {target_of("lm.model.emb", w, {"lm.head"}), target_of("lm.model.v", v)});
  EXPECT_EQ(w.item<double>() + v.item<double>(), 3);
  // Not where a name of the program lacks it.
  EXPECT_CONTAINS(input_error([&] {
                    overlay(state_dict_of({{"a", floats({1})}}), {target_of("lm.a", w), target_of("b", v)});
                  }),
                  "2 missing (lm.a, b); 1 extra (a)");
}

TEST(Overlay, CountersOfAveragedModels) {
  const at::Tensor a = at::zeros({1});
  const OverlayReport report =
      overlay(state_dict_of({{"n_averaged", at::ones({}, at::kLong)}, {"module.a", floats({4})}}), {target_of("a", a)});
  EXPECT_EQ(report.ignored, std::vector<std::string>{"n_averaged"});
  EXPECT_EQ(a.item<double>(), 4);
}

TEST(Overlay, LaterOverEarlier) {
  const at::Tensor a = at::zeros({1}), b = at::zeros({1}), c = at::zeros({1});
  const std::vector<OverlayTarget> targets{target_of("a", a), target_of("b", b, {"tied"}), target_of("c", c)};
  std::vector<StateDict> files{state_dict_of({{"a", floats({1})}, {"b", floats({2})}, {"tied", floats({2})}}),
                               state_dict_of({{"module.tied", floats({3})}, {"module.c", floats({4})}})};
  const OverlayReport report = overlay(files, targets);
  EXPECT_EQ(a.item<double>(), 1);
  EXPECT_EQ(b.item<double>(), 3);
  EXPECT_EQ(c.item<double>(), 4);
  EXPECT_EQ(report.changes, (std::vector<NameChange>{{}, {"module.", "", "", false}}));
  files.pop_back();
  EXPECT_CONTAINS(input_error([&] { overlay(files, targets); }),
                  "'w.pt' does not fit the program; 1 missing (c) (--weights-partial leaves what is missing");
  files.push_back(state_dict_of({{"c", floats({4})}, {"d", floats({4})}}));
  EXPECT_CONTAINS(input_error([&] { overlay(files, targets); }),
                  "'w.pt' and 'w.pt' do not fit the program; 1 extra (d)");
  files[1] = state_dict_of({{"n_averaged", floats({4})}});
  EXPECT_CONTAINS(input_error([&] {
                    overlay(files, {target_of("a", a), target_of("b", b, {"tied"})});
                  }),
                  "'w.pt' holds none of the program's weights");
}

TEST(Overlay, PartsAlone) {
  const at::Tensor a = at::full({1}, 7.0), b = at::full({1}, 7.0);
  const std::vector<OverlayTarget> targets{target_of("a", a), target_of("b", b)};
  const auto lay = [&](const StateDict& state_dict) { return overlay(std::span(&state_dict, 1), targets, true); };
  EXPECT_EQ(lay(state_dict_of({{"b", floats({1})}})).not_covered, std::vector<std::string>{"a"});
  EXPECT_EQ(a.item<double>(), 7);
  EXPECT_EQ(b.item<double>(), 1);
  EXPECT_CONTAINS(input_error([&] { lay(state_dict_of({{"b", floats({2})}, {"c", floats({2})}})); }), "1 extra (c)");
  EXPECT_CONTAINS(input_error([&] { lay(state_dict_of({{"n_averaged", floats({2})}})); }), "holds none of");
  EXPECT_CONTAINS(input_error([&] { lay(state_dict_of({})); }), "holds none of");
  EXPECT_EQ(b.item<double>(), 1);
}

// PEFT's files leave the adapter's name out, and those of the model below know nothing of the adapter.
TEST(Overlay, Adapters) {
  std::map<std::string, at::Tensor> program;
  std::vector<OverlayTarget> targets;
  for (const char* name : {"q.base_layer.weight", "q.base_layer.bias", "q.lora_A.default.weight",
                           "q.lora_B.default.weight", "q.lora_magnitude_vector.default.weight", "default.weight",
                           "head.modules_to_save.default.weight", "head.original_module.weight"}) {
    program[name] = at::full({1}, 7.0);
    targets.push_back(target_of(std::string("lm.base_model.model.") + name, program[name]));
  }
  const StateDict adapter = state_dict_of({{"base_model.model.q.lora_A.weight", floats({1})},
                                           {"base_model.model.q.lora_B.weight", floats({2})},
                                           {"base_model.model.q.lora_magnitude_vector.weight", floats({3})},
                                           {"base_model.model.head.weight", floats({4})}});
  const OverlayReport report = overlay(std::span(&adapter, 1), targets, true);
  EXPECT_EQ(report.changes.at(0), (NameChange{"", "lm.", "default", false}));
  EXPECT_EQ(report.not_covered.size(), 4U);
  EXPECT_EQ(program["q.lora_B.default.weight"].item<double>(), 2);
  EXPECT_EQ(program["head.modules_to_save.default.weight"].item<double>(), 4);
  EXPECT_EQ(program["head.original_module.weight"].item<double>(), 7);
  const StateDict base = state_dict_of({{"q.weight", floats({11})},
                                        {"q.bias", floats({12})},
                                        {"default.weight", floats({13})},
                                        {"head.weight", floats({14})}});
  const std::vector<StateDict> both{base, adapter};
  EXPECT_EQ(overlay(both, targets).changes.at(0), (NameChange{"", "lm.base_model.model.", "", true}));
  EXPECT_EQ(program["q.base_layer.bias"].item<double>(), 12);
  EXPECT_EQ(program["default.weight"].item<double>(), 13);
  EXPECT_EQ(program["head.original_module.weight"].item<double>(), 14);
  EXPECT_EQ(program["head.modules_to_save.default.weight"].item<double>(), 4);
}

TEST(Overlay, TiedWeights) {
  const at::Tensor w = at::zeros({2});
  const std::vector<OverlayTarget> targets{target_of("wte", w, {"lm_head"})};
  overlay(state_dict_of({{"lm_head", floats({1, 2})}}), targets);
  EXPECT_TRUE(w.equal(floats({1, 2})));
  overlay(state_dict_of({{"lm_head", floats({3, 4})}, {"wte", floats({3, 4})}}), targets);
  EXPECT_TRUE(w.equal(floats({3, 4})));
  EXPECT_CONTAINS(input_error([&] {
                    overlay(state_dict_of({{"lm_head", floats({3, 5})}, {"wte", floats({3, 4})}}), targets);
                  }),
                  "'wte' and 'lm_head' are one tied weight in the program, but differ");
  EXPECT_TRUE(w.equal(floats({3, 4})));
}

TEST(Overlay, OptionalAndToleratedNames) {
  const at::Tensor a = at::zeros({1});
  const at::Tensor table = at::zeros({1});
  const at::Tensor counter = at::zeros({}, at::kLong);
  const OverlayReport report =
      overlay(state_dict_of({{"a", floats({1})}, {"bn.num_batches_tracked", at::ones({}, at::kLong)}}),
              {target_of("a", a), target_of("table", table, {}, false), target_of("bn2.num_batches_tracked", counter)});
  EXPECT_EQ(report.ignored, std::vector<std::string>{"bn.num_batches_tracked"});
}

TEST(Overlay, Types) {
  const at::Tensor narrow = at::zeros({1});
  const auto lay = [&](const at::Tensor& from, const at::Tensor& to) {
    return overlay(state_dict_of({{"a", from}}), {target_of("a", to)});
  };
  EXPECT_CONTAINS(input_error([&] { lay(at::ones({1}, at::kLong), narrow); }),
                  "1 of another type (a: int64 in the state dict");
  EXPECT_CONTAINS(input_error([&] { lay(at::ones({1}, at::kFloat), at::zeros({1}, at::kLong)); }), "of another type");
  EXPECT_CONTAINS(input_error([&] { lay(at::full({1}, 1e300, at::kDouble), narrow); }),
                  "does not fit the program's float32");
  EXPECT_CONTAINS(input_error([&] { lay(at::full({1}, 1LL << 40, at::kLong), at::zeros({1}, at::kInt)); }),
                  "does not fit");
  EXPECT_TRUE(lay(at::full({1}, 0.1, at::kDouble), narrow).widened.empty());
  EXPECT_EQ(lay(at::ones({1}, at::kHalf), narrow).widened, std::vector<std::string>{"a"});
  EXPECT_CONTAINS(input_error([&] {
                    lay(at::full({2, 3}, -INFINITY).to(at::kHalf), at::zeros({2, 3}));
                  }),
                  "holds an infinite value at index [0, 0]");
}

TEST(Overlay, NearNames) {
  const at::Tensor a = at::zeros({1});
  EXPECT_CONTAINS(input_error([&] {
                    overlay(state_dict_of({{"layer.0.weigth", floats({1})}}), {target_of("layer.0.weight", a)});
                  }),
                  "1 missing (layer.0.weight) (did you mean 'layer.0.weigth'?); 1 extra");
}

}  // namespace
}  // namespace hesspect::state_dict_test

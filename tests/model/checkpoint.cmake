add_hesspect_test(checkpoint_test SOURCES checkpoint_test.cpp ROOMS model data FIXTURES TIMEOUT 300)

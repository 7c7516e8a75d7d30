hesspect export torchvision resnet18 --classes 3 --size 32 -o model.pt2
hesspect data images FOLDER/images --preset raw --resize 32 --crop 32 -o data.h5
hesspect density --model model.pt2 --weights FOLDER/weights.pt --data data.h5 --loss cross_entropy --steps 20 --density-w1 0 --rtol-trace 0 --output result.h5
hesspect plot result.h5 -o figure.png

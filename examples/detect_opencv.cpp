// Find objects with an exported file, by OpenCV alone: class, score and corners in pixels, a line each.
//
//     g++ -O2 -std=c++17 examples/detect_opencv.cpp -o detect_opencv $(pkg-config --cflags --libs opencv4)
//     ./detect_opencv --threshold=0.4 models/fruit/ssd-mobilenet.onnx images/*.jpg
//
// Input size, normalization and threshold stand in the file's metadata. OpenCV reads the file, but does not show its
// metadata, so `fact` looks them up in the bytes. By default that normalization is detectNet's, (pixel - 127.5) / 127.5;
// what the net was trained with follows inside the graph. Scores come out of the graph after softmax. Class names are
// those of labels.txt beside the file, or of <model>.labels.txt. Without --threshold: the file's own, else 0.5.
// OpenCV 4.8 and later run all nets, see docs/deploying.md.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

// Looks up metadata as protobuf stores it: 10, length, key, 18, length in groups of 7 bits, value.
std::string fact(const std::string& file, const std::string& key) {
    size_t at = file.find(std::string{'\n', char(key.size())} + key + '\x12'), length = 0;
    if (at == std::string::npos) throw std::runtime_error("MODEL has no " + key + "; expected a file of onnx_export.py");
    at += key.size() + 3;
    for (int shift = 0;; shift += 7) {
        const unsigned char byte = file.at(at++);
        length |= size_t(byte & 127) << shift;
        if (byte < 128) return file.substr(at, length);
    }
}

cv::Scalar channels(const cv::FileNode& node) {  // one number for all, or a list of three
    return node.isSeq() ? cv::Scalar(double(node[0]), double(node[1]), double(node[2])) : cv::Scalar::all(double(node));
}

int main(int argc, char** argv) try {
    double threshold = -1;
    const int given = argc > 1 && std::sscanf(argv[1], "--threshold=%lf", &threshold) == 1;
    if (argc < 3 + given) throw std::runtime_error("usage: detect_opencv [--threshold=0.5] MODEL.onnx IMAGE...");
    const std::string model = argv[1 + given];
    std::ifstream stream(model, std::ios::binary), labels(model.substr(0, model.rfind('.')) + ".labels.txt");
    const std::string file{std::istreambuf_iterator<char>(stream), {}}, about = fact(file, "ssd");
    int width, height;
    std::sscanf(fact(file, "size").c_str(), "%dx%d", &width, &height);
    const cv::FileStorage norm(fact(file, "normalisation"), cv::FileStorage::MEMORY | cv::FileStorage::FORMAT_JSON);
    if (const size_t at = about.find("\"threshold\": "); !given)
        threshold = at == std::string::npos ? 0.5 : std::stod(about.substr(at + 13));
    if (!labels) labels.open(model.substr(0, model.find_last_of("/\\") + 1) + "labels.txt");
    std::vector<std::string> names;
    for (std::string line; std::getline(labels, line);) names.push_back(line);
    cv::dnn::Net net = cv::dnn::readNetFromONNX(model);
    for (const std::string& path : std::vector<std::string>(argv + 2 + given, argv + argc)) {
        const cv::Mat image = cv::imread(path);  // BGR, turned as EXIF says
        if (image.empty()) throw std::runtime_error(path + ": cannot be read as an image");
        cv::Mat pixels;
        cv::resize(image, pixels, {width, height});
        cv::cvtColor(pixels, pixels, cv::COLOR_BGR2RGB);
        pixels.convertTo(pixels, CV_32F);
        cv::divide(pixels - channels(norm["mean"]), channels(norm["std"]), pixels);
        net.setInput(cv::dnn::blobFromImage(pixels), "input_0");
        std::vector<cv::Mat> found;
        net.forward(found, std::vector<std::string>{"scores", "boxes"});  // (1, P, C), and (1, P, 4) from 0 to 1
        const cv::Mat scores = found[0].reshape(1, found[0].size[1]), boxes = found[1].reshape(1, found[1].size[1]);
        if (scores.cols != int(names.size())) throw std::runtime_error("labels.txt does not name the model's classes");
        std::vector<cv::Rect2d> rectangles;
        for (const cv::Vec4f& box : cv::Mat_<cv::Vec4f>(boxes.reshape(4)))
            rectangles.emplace_back(box[0], box[1], box[2] - box[0], box[3] - box[1]);
        for (int label = 1; label < scores.cols; ++label) {  // 0 is the background
            std::vector<int> kept;  // of the best 200 those whose IoU with a better one is 0.45 at most
            cv::dnn::NMSBoxes(rectangles, scores.col(label).clone(), float(threshold), 0.45f, kept, 1.f, 200);
            for (const int prior : kept) {
                const auto pixel = [&](int side) {
                    return std::clamp(boxes.at<float>(prior, side), 0.f, 1.f) * (side % 2 ? image.rows : image.cols);
                };
                std::printf("%s\t%s\t%.6f\t%.2f\t%.2f\t%.2f\t%.2f\n", path.c_str(), names[label].c_str(),
                            scores.at<float>(prior, label), pixel(0), pixel(1), pixel(2), pixel(3));
            }
        }
    }
} catch (const std::exception& err) { return std::cerr << "detect_opencv: error: " << err.what() << "\n", 2; }

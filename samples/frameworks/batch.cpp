// A scheduler over /v1/framework in one file, with libcurl alone: places COUNT tasks of one wasm file on whatever the cluster offers, places those again
// that are lost, and ends when all have finished.
//
//     g++ -std=c++17 -O1 samples/frameworks/batch.cpp -lcurl -o batch
//     ./batch FILE.wasm COUNT [ARG...]                                 with SKEP_MASTER, SKEP_TOKEN and SKEP_CA

#include <curl/curl.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// As much JSON as this needs.
struct Json {
    enum Kind { Nothing, Flag, Number, Text, List, Object } kind = Nothing;
    bool flag = false;
    double number = 0;
    std::string text;
    std::vector<Json> list;
    std::map<std::string, Json> object;

    const Json& operator[](const std::string& name) const {
        static const Json nothing;
        auto found = object.find(name);
        return found == object.end() ? nothing : found->second;
    }
    explicit operator bool() const { return kind != Nothing; }
};

class Reader {
public:
    explicit Reader(const std::string& text) : text(text) {}

    Json value() {
        Json json;
        switch (next()) {
        case '{':
            json.kind = Json::Object;
            for (at++; next() != '}';) {
                if (next() == ',') at++;
                next();
                std::string name = string();
                if (next() != ':') throw std::runtime_error("no JSON: " + text);
                at++;
                json.object[name] = value();
            }
            at++;
            return json;
        case '[':
            json.kind = Json::List;
            for (at++; next() != ']';) {
                if (next() == ',') at++;
                json.list.push_back(value());
            }
            at++;
            return json;
        case '"':
            json.kind = Json::Text;
            json.text = string();
            return json;
        default: {
            size_t end = text.find_first_of(",]} \t\r\n", at);
            std::string word = text.substr(at, end - at);
            at = std::min(end, text.size());
            if (word == "null") return json;
            json.kind = word == "true" || word == "false" ? Json::Flag : Json::Number;
            json.flag = word == "true";
            if (json.kind == Json::Number) json.number = std::stod(word);
            return json;
        }
        }
    }

private:
    const std::string& text;
    size_t at = 0;

    char next() {
        at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
        if (at == text.size()) throw std::runtime_error("no JSON: " + text);
        return text[at];
    }

    std::string string() {
        std::string out;
        for (at++; at < text.size() && text[at] != '"'; at++) {
            if (text[at] != '\\') {
                out += text[at];
                continue;
            }
            switch (text.at(++at)) {
            case 'n': out += '\n'; break;
            case 't': out += '\t'; break;
            case 'u':
                // What is beyond ASCII matters to nothing here.
                out += static_cast<char>(std::stoi(text.substr(at + 1, 4), nullptr, 16));
                at += 4;
                break;
            default: out += text[at];
            }
        }
        at++;
        return out;
    }
};

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (unsigned char c : text) {
        char code[8];
        std::snprintf(code, sizeof code, "\\u%04x", c);
        if (c == '"' || c == '\\' || c < ' ') out += code;
        else out += static_cast<char>(c);
    }
    return out + "\"";
}

std::string joined(const std::vector<std::string>& parts) {
    std::string out = "[";
    for (const auto& part : parts) out += (out.size() > 1 ? "," : "") + part;
    return out + "]";
}

std::string needed(const char* name) {
    const char* value = std::getenv(name);
    if (!value) throw std::invalid_argument(std::string(name) + " is not set");
    return value;
}

// One POST after the other over one handle; or one whose answer is a stream of lines.
class Http {
public:
    Http() : curl(curl_easy_init()), ca(needed("SKEP_CA")), authorization("Authorization: Bearer " + needed("SKEP_TOKEN")) {}
    ~Http() { curl_easy_cleanup(curl); }
    Http(const Http&) = delete;

    using Write = size_t (*)(char*, size_t, size_t, void*);

    // The status of the answer; 0 where there was none.
    long post(const std::string& url, const std::string& kind, const std::string& body, Write write, void* to) {
        curl_slist* headers = curl_slist_append(nullptr, authorization.c_str());
        headers = curl_slist_append(headers, ("Content-Type: " + kind).c_str());
        curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
        curl_easy_setopt(curl, CURLOPT_CAINFO, ca.c_str());
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
        // The master that keeps the framework may be another: the same is said there.
        curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
        curl_easy_setopt(curl, CURLOPT_UNRESTRICTED_AUTH, 1L);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, write);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, to);
        // The master says something each 15 seconds.
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 40L);
        CURLcode code = curl_easy_perform(curl);
        curl_slist_free_all(headers);
        if (code != CURLE_OK) std::cerr << url << ": " << curl_easy_strerror(code) << "\n";
        return code == CURLE_OK ? status() : 0;
    }

    long status() const {
        long status = 0;
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        return status;
    }

    // Who answered.
    std::string where() const {
        char* url = nullptr;
        curl_easy_getinfo(curl, CURLINFO_EFFECTIVE_URL, &url);
        return url ? url : "";
    }

private:
    CURL* curl;
    std::string ca, authorization;
};

size_t append(char* data, size_t size, size_t n, void* to) {
    static_cast<std::string*>(to)->append(data, size * n);
    return size * n;
}

class Batch {
public:
    Batch(const std::string& file, int count, std::vector<std::string> args) : count(count), args(std::move(args)) {
        std::string list = needed("SKEP_MASTER");
        for (size_t from = 0, to; from <= list.size(); from = to + 1) {
            to = std::min(list.find(',', from), list.size());
            masters.push_back(list.substr(from, to - from));
        }
        std::ifstream bytes(file, std::ios::binary);
        std::string body{std::istreambuf_iterator<char>(bytes), {}}, answer;
        // To the first master that takes it.
        for (size_t n = 0; calls.post(masters[n % masters.size()] + "/v1/bundles", "application/octet-stream", body, append, &answer) / 100 != 2; n++) {
            if (n == 60) throw std::runtime_error("uploading " + file + ": " + answer);
            std::this_thread::sleep_for(std::chrono::seconds(1));
            answer.clear();
        }
        wasm = Reader(answer).value()["digest"].text;
        for (int n = 0; n < count; n++) waiting.push_back("task-" + std::to_string(n));
    }

    // Subscribes and hears, again where the connection breaks, until all have finished.
    int run() {
        for (size_t n = 0; !done; n++) {
            if (n > 0) std::this_thread::sleep_for(std::chrono::seconds(1));
            broken = false;
            line.clear();
            std::string about = "{\"subscribe\":{\"name\":\"batch-cpp\",\"failover_ms\":60000" + (id.empty() ? "" : ",\"id\":" + quoted(id)) + "}}";
            stream.post(masters[n % masters.size()] + "/v1/framework", "application/json", about, hear, this);
            if (gone) throw std::runtime_error("the framework is gone: " + line);
        }
        return finished;
    }

private:
    static constexpr int64_t CPU_MILLI = 100, MEMORY = 16 << 20;

    Http stream, calls;
    int count, finished = 0, tries = 0;
    std::vector<std::string> args, masters;
    std::string id, subscription, wasm, line;
    std::deque<std::string> waiting;
    std::set<std::string> placed;
    bool broken = false, done = false, gone = false;

    // Part of the stream; taking less than all of it ends it.
    static size_t hear(char* data, size_t size, size_t n, void* to) {
        auto& self = *static_cast<Batch*>(to);
        self.line.append(data, size * n);
        if (self.stream.status() != 200) return size * n;
        for (size_t end; (end = self.line.find('\n')) != std::string::npos && !self.broken && !self.done && !self.gone;) {
            self.event(Reader(self.line.substr(0, end)).value());
            if (!self.gone) self.line.erase(0, end + 1);
        }
        return self.broken || self.done || self.gone ? 0 : size * n;
    }

    // One call; nothing is said any more once one was not taken in, until the framework is subscribed again.
    void say(const std::string& kind, const std::string& body) {
        if (broken) return;
        std::string answer, call = "{\"id\":" + quoted(id) + ",\"stream\":" + quoted(subscription) + ",\"" + kind + "\":" + body + "}";
        broken = calls.post(stream.where(), "application/json", call, append, &answer) / 100 != 2;
        if (broken) std::cerr << kind << ": " << answer << "\n";
    }

    void event(const Json& event) {
        if (const Json& who = event["subscribed"]) {
            id = who["id"].text;
            subscription = who["stream"].text;
            std::vector<std::string> names;
            for (const auto& name : placed) names.push_back(quoted(name));
            if (!names.empty()) say("reconcile", joined(names));
        }
        for (const Json& offer : event["offers"].list) offered(offer);
        if (const Json& update = event["update"]) updated(update);
        gone = static_cast<bool>(event["error"]);
        if (finished == count) {
            say("teardown", "true");
            done = !broken;
        }
    }

    void offered(const Json& offer) {
        const Json& resources = offer["resources"];
        auto room = std::min(static_cast<int64_t>(resources["cpu_milli"].number) / CPU_MILLI, static_cast<int64_t>(resources["memory_bytes"].number) / MEMORY);
        std::vector<std::string> tasks, words;
        for (const auto& arg : args) words.push_back(quoted(arg));
        for (; room > 0 && !waiting.empty(); room--) {
            std::string name = waiting.front();
            waiting.pop_front();
            placed.insert(name);
            tasks.push_back("{\"name\":" + quoted(name) + ",\"job\":{\"task\":{\"wasm\":" + quoted(wasm) + ",\"args\":" + joined(words) +
                            "},\"resources\":{\"cpu\":0.1,\"memory\":\"" + std::to_string(MEMORY) + "\"}}}");
        }
        std::string offers = "{\"offers\":[" + quoted(offer["id"].text) + "]";
        if (tasks.empty()) say("decline", offers + "}");
        else say("accept", offers + ",\"tasks\":" + joined(tasks) + ",\"refuse_ms\":0}");
    }

    void updated(const Json& update) {
        static const std::set<std::string> ends = {"finished", "failed", "killed", "rejected", "lost"};
        std::string name = update["task"].text, state = update["state"].text;
        if (ends.count(state) && placed.erase(name)) {
            if (state == "finished") finished++;
            else {
                waiting.push_back("again-" + std::to_string(tries++));
                say("revive", "[]");
            }
        }
        if (update["uuid"]) say("acknowledge", "{\"task\":" + quoted(name) + ",\"uuid\":" + quoted(update["uuid"].text) + "}");
    }
};

int main(int argc, char** argv) try {
    if (argc < 3) throw std::invalid_argument("usage: batch FILE.wasm COUNT [ARG...]");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Batch batch(argv[1], std::stoi(argv[2]), {argv + 3, argv + argc});
    std::cout << batch.run() << " tasks finished" << std::endl;
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}

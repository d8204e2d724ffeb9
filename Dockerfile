# onetrunk on the CPU.
#
#   docker build -t onetrunk .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" onetrunk data folder:photos
#
# PyPI's torch for Linux includes CUDA. An index of CPU wheels makes the image several GB smaller:
#   docker build -t onetrunk --build-arg TORCH_INDEX_URL=... .

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir "build>=1.3" && python -m build --wheel --outdir /dist

FROM python:${PYTHON_VERSION}-slim
ARG TORCH_INDEX_URL=""
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
    "torch>=2.11" "torchvision>=0.26"
COPY --from=build /dist /dist
RUN pip install --no-cache-dir "$(echo /dist/*.whl)[lite,onnx,parquet,coco]"

# Any user may write to the cache, so that the container can run as the owner of the mounted folder.
ENV ONETRUNK_CACHE=/cache/onetrunk HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch \
    MPLCONFIGDIR=/cache/matplotlib
RUN useradd --uid 1000 --create-home onetrunk && install -d -m 1777 /cache && install -d -o onetrunk /work
USER onetrunk
WORKDIR /work
ENTRYPOINT ["onetrunk"]
CMD ["--help"]
